"""Publishing to many queues at once leaves connections to everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from jobwire_server.broker import publisher
from jobwire_server.broker.broker import Broker
from jobwire_server.domain.errors import DatabaseUnavailable, LockTimeout
from tests.broker.conftest import publish, until
from tests.conftest import Postgres


async def test_half_of_the_connections_publish_at_most(
    replica: Callable[..., Awaitable[Broker]], postgres: Postgres, schema: str
) -> None:
    broker = await replica(publishing_connections=2)
    queues = [f"queue-{number}" for number in range(8)]
    for queue in [*queues, "other"]:
        await broker.queues.for_publish(queue)
    with psycopg.connect(postgres.dsn) as blocker:
        blocker.execute(f'LOCK TABLE "{schema}".live_job'.encode())
        publishing = [asyncio.create_task(publish(broker, queue=queue)) for queue in queues]
        await until(broker._publisher._connections.locked)
        await until(lambda: len(broker._publisher._lines) == len(queues))
        assert await broker.queues.names()
        assert broker._database.pool_stats().get("requests_waiting", 0) == 0
        assert not all(task.done() for task in publishing)
        ended = await asyncio.gather(*publishing, return_exceptions=True)
    assert {type(error) for error in ended} == {LockTimeout}
    for queue in queues:
        await publish(broker, queue=queue)


async def test_a_turn_is_not_waited_for_in_vain(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = broker._publisher._connections
    for _ in range(2):
        await turns.acquire()
    with monkeypatch.context() as patched:
        patched.setattr(publisher, "_TURN_SECONDS", 0.05)
        with pytest.raises(DatabaseUnavailable):
            await publish(broker)
    for _ in range(2):
        turns.release()
    await publish(broker)

"""publish() in SQL with keys and groups, as a role calls it that may do nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from jobwire_server.domain.jobs import JobState, Labels
from jobwire_server.domain.queues import Policy, Queue, QueueLimits
from jobwire_server.store import gates, queues, reading
from jobwire_server.store.database import Database
from tests.conftest import Postgres

Publish = Callable[..., Awaitable[UUID | None]]


@pytest.fixture
async def app(database: Database, postgres: Postgres) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection of a role without rights to any table."""
    role, schema = f"app_{uuid4().hex[:8]}", database.schema
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute(
            f'CREATE ROLE {role}; GRANT USAGE ON SCHEMA "{schema}" TO {role};'
            f'GRANT EXECUTE ON FUNCTION "{schema}".publish(text, jsonb, jsonb) TO {role}; SET ROLE {role}'.encode()
        )
        yield connection
        await connection.rollback()
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.fixture
def publish(database: Database, app: psycopg.AsyncConnection[Any]) -> Publish:
    """`await publish("work", "1", key="k")`: the job's id, None if it was not stored."""

    async def call(queue: str, data: str = "1", **options: object) -> UUID | None:
        statement = f'SELECT "{database.schema}".publish(%s, %s, %s)'.encode()
        cursor = await app.execute(statement, [queue, data, json.dumps(options)])
        [(job_id,)] = await cursor.fetchall()
        return job_id

    return call


async def test_the_role_may_do_nothing_else(database: Database, app: psycopg.AsyncConnection[Any]) -> None:
    for table in ("live_job", "guard", "gate_event", "queue"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await app.execute(f'SELECT FROM "{database.schema}".{table}'.encode())


async def test_labels_are_stored(database: Database, publish: Publish) -> None:
    await queues.create_queue(database, Queue("work"))
    await queues.create_queue(database, Queue("dead"))
    job_id = await publish("work", key="order 7", group="acme", tier="gold", dead_letter="dead")
    assert job_id is not None
    job = await reading.get_job(database, ["work"], job_id)
    assert job is not None
    assert (job.labels, job.options.dead_letter) == (Labels("order 7", "acme", "gold"), "dead")


@pytest.mark.parametrize("option", ["throttle", "unique_for"])
async def test_one_of_a_key_in_a_time(database: Database, publish: Publish, option: str) -> None:
    await queues.create_queue(database, Queue("work"))
    # Of a slot of a year, a test meets the end once in a lifetime.
    year = {option: 31_536_000}
    assert await publish("work", key="a", **year)
    assert await publish("work", key="a", **year) is None
    assert await publish("work", key="b", **year)
    assert await publish("work", key="a")


async def test_the_rest_of_a_burst_waits_for_the_next_slot(database: Database, publish: Publish) -> None:
    await queues.create_queue(database, Queue("work"))
    stored = [await publish("work", key="a", debounce=31_536_000) for _ in range(4)]
    assert [job_id is not None for job_id in stored] == [True, True, False, False]
    counts = (await queues.count_jobs(database, ["work"]))["work"]
    assert (counts.ready, counts.scheduled) == (1, 1)


async def test_policies_are_kept(database: Database, publish: Publish) -> None:
    for policy in Policy:
        await queues.create_queue(database, Queue(policy.name, policy=policy))
        second = [await publish(policy.name, key="a") for _ in range(2)][1]
        assert (second is None) == (policy in (Policy.SHORT, Policy.STATELY, Policy.EXCLUSIVE)), policy


async def test_what_is_rolled_back_keeps_nobody_away(
    database: Database, app: psycopg.AsyncConnection[Any], publish: Publish
) -> None:
    await queues.create_queue(database, Queue("work", policy=Policy.EXCLUSIVE))
    await app.set_autocommit(False)
    assert await publish("work", key="a", unique_for=3_600)
    assert await publish("work", key="a", unique_for=3_600) is None
    await app.rollback()
    assert await publish("work", key="a", unique_for=3_600)
    await app.commit()
    await app.set_autocommit(True)


async def test_jobs_of_gated_queues_come_to_the_gates(database: Database, publish: Publish) -> None:
    limits = QueueLimits(group_max_active=1)
    await queues.create_queue(database, Queue("work", limits=limits, fair=True))
    ids = [await publish("work", group=group) for group in ("a", "a", "b")]
    await gates.admit(database, "work")
    jobs = [await reading.get_job(database, ["work"], job_id) for job_id in ids if job_id]
    assert [job.state for job in jobs if job] == [JobState.CREATED, JobState.BLOCKED, JobState.CREATED]


async def test_a_full_queue_counts_what_waits_at_gates(database: Database, publish: Publish) -> None:
    await queues.create_queue(database, Queue("work", policy=Policy.SINGLETON, max_depth=2))
    assert await publish("work")
    await gates.admit(database, "work")
    assert await publish("work")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match='queue "work" is full'):
        await publish("work")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"key": ""}, "texts of 1 to 200 characters"),
        ({"key": "k" * 201}, "texts of 1 to 200 characters"),
        ({"key": 7}, "texts of 1 to 200 characters"),
        ({"group": "g" * 201}, "texts of 1 to 200 characters"),
        ({"group": "g", "tier": ["gold"]}, "texts of 1 to 200 characters"),
        ({"tier": "gold"}, "a tier is that of a group"),
        ({"throttle": 0}, "0.001 to 31536000 seconds"),
        ({"debounce": -1}, "0.001 to 31536000 seconds"),
        ({"unique_for": 31_536_001}, "0.001 to 31536000 seconds"),
        ({"throttle": 1, "debounce": 1}, "only one of throttle, debounce and unique_for"),
        ({"throttle": 1, "unique_for": 0}, "only one of throttle, debounce and unique_for"),
        ({"dead_letter": "nowhere"}, 'queue "nowhere" does not exist'),
    ],
)
async def test_what_cannot_be_is_refused_with_its_reason(
    database: Database, publish: Publish, options: dict[str, object], says: str
) -> None:
    await queues.create_queue(database, Queue("work"))
    with pytest.raises(psycopg.Error, match=says):
        await publish("work", **options)
    assert (await queues.count_jobs(database, ["work"]))["work"].ready == 0


async def test_a_queue_that_keeps_the_order_of_keys_takes_no_job_without_one(
    database: Database, publish: Publish
) -> None:
    await queues.create_queue(database, Queue("work", policy=Policy.KEY_STRICT_FIFO))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="must have a key"):
        await publish("work")
    assert await publish("work", key="k")

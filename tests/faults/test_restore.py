"""A base backup is restored while the workers still hold what they were given after it was made.

What is promised: what had its outcome before the backup keeps it. What ran then, and what waited, is there again and is
delivered again, once `jobwire recover` has been run, even if it had its outcome meanwhile: a handler runs at least
once. What was published after the backup is gone. No lease from before the restore is valid.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobwire import Client, NotFound
from jobwire.v1 import queue_service_pb2 as pb
from jobwire_server.embedded import EmbeddedPostgres
from tests.system.conftest import ServerProcess, until

from .conftest import Loads, Serving
from .load import understood
from .watching import stub

pytestmark = pytest.mark.timeout(300)


@asynccontextmanager
async def thin_worker(replica: ServerProcess, count: int) -> AsyncIterator[tuple[Any, list[Any]]]:
    """The stub, and `count` deliveries of the queue `thin`."""
    async with stub(replica) as queue:
        stream = queue.Subscribe(pb.SubscribeRequest(queues=["thin"], max_in_flight=count))
        deliveries: list[Any] = []
        async with asyncio.timeout(60):
            while len(deliveries) < count:
                deliveries += (await stream.read()).deliveries.deliveries
        yield queue, deliveries
        stream.cancel()


def complete(*deliveries: Any) -> pb.AckRequest:
    return pb.AckRequest(items=[pb.AckItem(handle=d.handle, complete=pb.Complete(output="1")) for d in deliveries])


@pytest.fixture
def restored(open_folder: Path) -> Iterator[EmbeddedPostgres]:
    """What the backup is restored to."""
    postgres = EmbeddedPostgres(open_folder / "restored")
    yield postgres
    postgres.stop()


async def test_restored_from_a_base_backup(
    own: EmbeddedPostgres, restored: EmbeddedPostgres, serving: Serving, load: Loads, schema: str
) -> None:
    replica = serving()
    publish = pb.PublishRequest(queue="thin", jobs=[pb.JobSpec(data="1") for _ in range(4)])
    async with stub(replica) as queue:
        ids = [result.job_id for result in (await queue.Publish(publish)).results]
    work = await load(replica)
    await work.hold()
    async with thin_worker(replica, 4) as (queue, deliveries):
        by_id = {delivery.job_id: delivery for delivery in deliveries}
        before, after, running, failing = (by_id[job_id] for job_id in ids)
        assert (await queue.Ack(complete(before))).results[0].status == pb.ACK_STATUS_APPLIED
        stored = set(work.acknowledged)
        await asyncio.to_thread(back_up, own, restored)
        assert (await queue.Ack(complete(after))).results[0].status == pb.ACK_STATUS_APPLIED
        fail = pb.AckItem(handle=failing.handle, fail=pb.Fail(type="E", message="m", permanent=True))
        assert (await queue.Ack(pb.AckRequest(items=[fail]))).results[0].status == pb.ACK_STATUS_APPLIED
        [later] = (await queue.Publish(pb.PublishRequest(queue="later", jobs=[pb.JobSpec()]))).results
        # The database is gone for good, and the server with it; the workers go on.
        replica.kill()
        await asyncio.to_thread(own.stop)
    await asyncio.to_thread(restored.start)
    recovered = await asyncio.to_thread(recover, restored, schema)
    assert recovered["jobs"]["thin"] == 3 and recovered["jobs"]["work"] >= len(work.held)
    replica.env["JOBWIRE_DATABASE_URL"] = work.dsn = restored.dsn
    await asyncio.to_thread(replica.start)
    async with stub(replica) as queue:
        answer = await queue.Ack(complete(running, after, failing, before))
    # No lease of then counts. What had its outcome before the backup keeps it.
    lost = pb.ACK_STATUS_LEASE_LOST
    assert [result.status for result in answer.results] == [lost, lost, lost, pb.ACK_STATUS_ALREADY_APPLIED]
    async with thin_worker(replica, 3) as (queue, deliveries):
        again = {(delivery.job_id, delivery.attempt, delivery.retry_count) for delivery in deliveries}
        assert again == {(delivery.job_id, 2, 0) for delivery in (after, running, failing)}
        answer = await queue.Ack(complete(*deliveries))
        assert [result.status for result in answer.results] == [pb.ACK_STATUS_APPLIED] * 3
    async with Client(replica.address) as client:
        with pytest.raises(NotFound):
            await client.get_job(later.job_id)
    # The worker of the load learns that its session is over, stops what it ran for it, and begins anew.
    await until(lambda: all(work.starts[job_id] == 2 for job_id in work.held))
    await work.flows()
    await work.finish()
    outcomes = await work.rows("SELECT id::text, state, retry_count, loss_count FROM archive WHERE queue = 'work'")
    completed = Counter(row[0] for row in outcomes)
    assert stored <= completed.keys() and set(completed.values()) == {1}
    assert {row[1:] for row in outcomes} == {(4, 0, 0)}
    assert all(work.dones[job_id] == 1 for job_id in work.held)
    understood(replica)


def back_up(own: EmbeddedPostgres, to: EmbeddedPostgres) -> None:
    to.data_dir.mkdir(mode=0o700)
    (to.data_dir / "password").write_text((own.data_dir / "password").read_text())
    command = [own.binaries / "pg_basebackup", "-d", own.dsn, "-D", to.data_dir / "cluster", "-c", "fast"]
    subprocess.run(command, check=True)


def recover(restored: EmbeddedPostgres, schema: str) -> Any:
    """`jobwire recover`, as its operator runs it."""
    # A variable meant for the tests is one that the command does not know.
    env = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
    env |= {"JOBWIRE_DATABASE_URL": restored.dsn, "JOBWIRE_SCHEMA": schema}
    command = [sys.executable, "-m", "jobwire_server", "recover", "--yes", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)

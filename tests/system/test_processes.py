"""The promises between real processes: deploys, crashes, an away database."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from jobwire import Client, JobState, NewJob
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire_server.embedded import EmbeddedPostgres
from tests.conftest import Postgres, long

from .conftest import ServerProcess, WorkerProcess, until

Servers = Callable[..., ServerProcess]
Workers = Callable[..., WorkerProcess]


async def completed(client: Client, ids: list[str], seconds: float = 60.0) -> None:
    """Waits until all jobs are completed; each by its first delivery."""
    async with asyncio.timeout(seconds):
        for job_id in ids:
            job = await client.wait(job_id, queue="work")
            assert job.state is JobState.COMPLETED, job


def probe(server: ServerProcess, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def metric(server: ServerProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(name + " ")), 0.0)


async def test_a_job_from_process_to_process(server: Servers, worker: Workers) -> None:
    replica = server()
    worker(replica.address)
    async with Client(replica.address) as client:
        published = await client.publish("work", {"file_key": "a.xlsx"})
        job = await client.wait(published.job_id, queue="work", timeout=30)
        assert (job.state, job.output, job.data) == (JobState.COMPLETED, {"attempt": 1}, {"file_key": "a.xlsx"})
    replica.send(signal.SIGTERM)
    assert replica.ends() == 0
    assert [line for line in replica.events() if line["level"] in ("error", "critical")] == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("number", "away"),
    [
        (signal.SIGTERM, 1.0),
        (signal.SIGINT, 1.0),
        # Longer than the grace of a stream that breaks.
        (signal.SIGTERM, 20.0),
        pytest.param(signal.SIGTERM, 60.0, marks=long),
    ],
)
async def test_a_deploy_of_the_only_replica_touches_no_running_job(
    server: Servers, worker: Workers, number: signal.Signals, away: float
) -> None:
    replica = server(drain_timeout=10)
    working = worker(replica.address, seconds=5.0 + away, concurrency=3)
    async with Client(replica.address) as client:
        ids = [(await client.publish("work", n)).job_id for n in range(3)]
        await until(lambda: len(working.starts()) == 3)
        replica.send(number)
        assert replica.ends(15) == 0
        await asyncio.sleep(away)
        replica.start()
        await completed(client, ids)
        # The same session goes on, and takes the next jobs.
        more = [(await client.publish("work", n)).job_id for n in range(2)]
        await until(lambda: len(working.starts()) == 5)
    assert Counter(working.starts()) == Counter(ids + more)
    assert metric(replica, "jobwire_resumed_total") == 1


async def test_a_rolling_deploy_under_load_runs_each_job_once(server: Servers, worker: Workers) -> None:
    replicas = [server(), server()]
    target = "ipv4:" + ",".join(replica.address for replica in replicas)
    working = worker(target, seconds=0.3, concurrency=10)
    worker(target, seconds=0.3, concurrency=10)
    ids: list[str] = []
    async with Client(target) as client:

        async def publish() -> None:
            for n in range(300):
                ids.append((await client.publish("work", n)).job_id)
                await asyncio.sleep(0.02)

        publishing = asyncio.create_task(publish())
        for replica in replicas:
            await asyncio.sleep(1.5)
            replica.send(signal.SIGTERM)
            assert await asyncio.to_thread(replica.ends, 30) == 0
            await asyncio.to_thread(replica.start)
        await publishing
        await completed(client, ids)
        jobs = [await client.get_job(job_id, queue="work") for job_id in ids]
    assert [(job.retry_count, job.loss_count) for job in jobs] == [(0, 0)] * 300
    again = {job_id: count for job_id, count in Counter(working.starts()).items() if count > 1}
    assert again == {}
    assert set(working.starts()) == set(ids)


async def test_a_killed_replica_is_replaced_by_the_other_and_jobs_go_on(server: Servers, worker: Workers) -> None:
    one, other = server(), server()
    working = worker(f"ipv4:{one.address},{other.address}", seconds=4.0, concurrency=2)
    async with Client(other.address) as client:
        ids = [(await client.publish("work", n)).job_id for n in range(2)]
        await until(lambda: len(working.starts()) == 2)
        one.kill()
        await completed(client, ids)
    assert Counter(working.starts()) == Counter(ids)


async def test_a_killed_replica_that_comes_back_soon_loses_no_job(server: Servers, worker: Workers) -> None:
    replica = server()
    working = worker(replica.address, seconds=5.0, concurrency=2)
    async with Client(replica.address) as client:
        ids = [(await client.publish("work", n)).job_id for n in range(2)]
        await until(lambda: len(working.starts()) == 2)
        replica.kill()
        replica.start()
        await completed(client, ids)
    assert Counter(working.starts()) == Counter(ids)


async def test_a_killed_workers_job_goes_to_another_after_the_grace(server: Servers, worker: Workers) -> None:
    replica = server()
    doomed = worker(replica.address, seconds=30.0)
    async with Client(replica.address) as client:
        [job_id] = [(await client.publish("work", n)).job_id for n in range(1)]
        # Two heartbeats prove the receipt.
        await until(doomed.starts)
        await asyncio.sleep(11.0)
        doomed.kill()
        rescuer = worker(replica.address)
        await completed(client, [job_id])
        job = await client.get_job(job_id, queue="work")
    assert (job.attempt, job.retry_count, job.loss_count) == (2, 0, 1)
    assert len(rescuer.starts()) == 2


async def test_a_stopped_worker_finishes_what_it_runs_and_takes_nothing_new(server: Servers, worker: Workers) -> None:
    replica = server()
    stopping = worker(replica.address, seconds=5.0, concurrency=2)
    async with Client(replica.address) as client:
        ids = [(await client.publish("work", n)).job_id for n in range(6)]
        await until(lambda: len(stopping.starts()) == 2)
        stopping.send(signal.SIGTERM)
        assert stopping.ends(40) == 0
        assert len(stopping.starts()) == len(stopping.dones()) == 2
        states = Counter([(await client.get_job(job_id, queue="work")).state for job_id in ids])
        assert states == {JobState.COMPLETED: 2, JobState.CREATED: 4}


async def test_ten_servers_at_once_on_an_empty_database(server: Servers, postgres: Postgres) -> None:
    mark = postgres.log_size()
    replicas = [server(wait=False) for _ in range(10)]
    for replica in replicas:
        await asyncio.to_thread(replica.wait_for, "serving")
    names = [f"queue-{n}" for n in range(10)]

    async def create(replica: ServerProcess) -> list[bool]:
        async with Client(replica.address) as client:
            return [(await client.admin.create_queue(name)).name == name for name in names]

    await asyncio.gather(*(create(replica) for replica in replicas))
    async with Client(replicas[0].address) as client:
        assert [queue.name for queue in await client.admin.list_queues()] == names
    for replica in replicas:
        replica.send(signal.SIGTERM)
    assert [replica.ends() for replica in replicas] == [0] * 10
    assert [line for replica in replicas for line in replica.events() if line["level"] in ("warning", "error")] == []
    assert postgres.errors(mark) == []


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that a test may stop and crash."""
    with tempfile.TemporaryDirectory(prefix="jobwire-own-") as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder) / "pg") as postgres:
            yield postgres


@pytest.mark.parametrize("crash", [False, True])
async def test_the_database_goes_away_and_comes_back(
    own_postgres: EmbeddedPostgres, server: Servers, worker: Workers, crash: bool
) -> None:
    replica = server(dsn=own_postgres.dsn)
    working = worker(replica.address, seconds=6.0)
    async with Client(replica.address, timeout=60) as client:
        first = (await client.publish("work", 1)).job_id
        await until(working.starts)
        await asyncio.to_thread(own_postgres.kill if crash else own_postgres.stop)
        await until(lambda: probe(replica, "readyz") == 503)
        publishing = asyncio.create_task(client.publish("work", 2))
        await asyncio.sleep(2.0)
        assert not publishing.done()
        await asyncio.to_thread(own_postgres.start)
        second = (await publishing).job_id
        await completed(client, [first, second])
        await until(lambda: probe(replica, "readyz") == 200)
        job = await client.get_job(first, queue="work")
    assert (job.attempt, job.loss_count) == (1, 0)
    assert replica.running.poll() is None


async def test_a_server_waits_for_its_database(own_postgres: EmbeddedPostgres, server: Servers) -> None:
    own_postgres.stop()
    replica = server(wait=False, dsn=own_postgres.dsn)
    await until(lambda: probe(replica, "readyz") == 503)
    assert probe(replica, "livez") == 200
    await asyncio.to_thread(own_postgres.start)
    await asyncio.to_thread(replica.wait_for, "serving")
    assert probe(replica, "readyz") == 200


def test_a_settings_typo_stops_the_start_and_is_named(server: Servers) -> None:
    replica = server(wait=False, pool_szie=3)
    assert replica.ends(30) == 2
    assert "JOBWIRE_POOL_SZIE" in replica.text() and "JOBWIRE_POOL_SIZE" in replica.text()
    assert "Traceback" not in replica.text()


async def test_a_second_server_on_the_same_port_is_refused(server: Servers) -> None:
    first = server()
    second = server(wait=False, listen=first.address)
    assert second.ends(30) != 0
    assert str(first.port) in second.text() and "Traceback" not in second.text()


def test_a_thin_client_on_the_generated_stubs(server: Servers) -> None:
    """Ten lines, no resume: subscribe, work, ack."""
    replica = server()
    with grpc.insecure_channel(replica.address) as channel:
        stub = QueueServiceStub(channel)
        stub.Publish(pb.PublishRequest(queue="work", jobs=[pb.JobSpec(data=f'{{"n":{n}}}') for n in range(3)]))
        done = 0
        stream = stub.Subscribe(pb.SubscribeRequest(queues=["work"], max_in_flight=1))
        for message in stream:
            if message.HasField("opened"):
                session = message.opened.session_id
            for delivery in message.deliveries.deliveries:
                item = pb.AckItem(handle=delivery.handle, complete=pb.Complete(output=delivery.data))
                answer = stub.Ack(pb.AckRequest(session_id=session, items=[item], last_sequence=message.sequence))
                assert answer.results[0].status == pb.ACK_STATUS_APPLIED
                done += 1
            if done == 3:
                stream.cancel()
                break


async def test_many_jobs_through_batches(server: Servers, worker: Workers) -> None:
    replica = server()
    working = worker(replica.address, concurrency=50)
    async with Client(replica.address) as client:
        published = await client.publish_many("work", [NewJob({"n": n}) for n in range(2_500)])
        assert all(result.created for result in published)
        await until(lambda: len(working.dones()) == 2_500)
        await completed(client, [result.job_id for result in published[-5:]])
    assert Counter(working.starts()) == Counter(result.job_id for result in published)


def test_the_command_line_from_publishing_to_the_result(server: Servers, worker: Workers, tmp_path: Path) -> None:
    replica = server()

    def jobwire(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {"JOBWIRE_SERVER": replica.address, "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "jobwire_server", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, timeout=60, check=False)

    assert jobwire("version").returncode == 0
    published = jobwire("publish", "work", '{"n": 1}', "--json")
    assert published.returncode == 0, published.stderr
    job_id = json.loads(published.stdout)["job_id"]
    many = jobwire("publish", "work", "-", "--json", stdin="".join(f'{{"n": {n}}}\n' for n in range(1_200)))
    assert many.returncode == 0 and len(many.stdout.splitlines()) == 1_200
    bad = jobwire("publish", "work", "-", stdin='{"n": 1}\n{"n": \n')
    assert bad.returncode == 2 and "2" in bad.stderr
    assert jobwire("publish", "a:b", "1").returncode == 2
    worker(replica.address, concurrency=20)
    watched = jobwire("job", job_id, "--queue", "work", "--watch", "--json")
    assert watched.returncode == 0, watched.stderr
    assert json.loads(watched.stdout.splitlines()[-1])["state"] == "completed"
    assert jobwire("job", "00000000-0000-4000-8000-000000000000", "--queue", "work").returncode == 3
    listed = jobwire("queues", "list", "--json")
    assert [json.loads(line)["name"] for line in listed.stdout.splitlines()] == ["work"]
    replica.stop()
    assert jobwire("queues", "list").returncode == 4

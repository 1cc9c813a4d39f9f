"""Dead letters, redrives and blocked keys as an operator sees them: by gRPC, client and command line."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import grpc
import pytest

from jobwire import Client, FailForGood, Job, JobOptions, JobState, LetterRefusal, UnblockStatus, Worker
from jobwire.v1 import admin_service_pb2 as admin
from jobwire.v1 import dead_letters_pb2 as pb
from jobwire.v1 import job_pb2 as jobs
from jobwire.v1.queue_service_pb2 import JobSpec, PublishRequest

from .conftest import Api


@dataclass(frozen=True)
class Shop:
    """A queue of the test's own, and where its dead letters go."""

    client: Client
    address: str
    work: str
    dead: str

    async def fail(self, count: int, queue: str = "", **said: object) -> list[str]:
        """Publishes jobs that fail for good, and waits for their dead letters; returns their ids."""
        name = queue or self.work
        ids = [(await self.client.publish(name, {"n": n}, **said)).job_id for n in range(count)]  # type: ignore[arg-type]
        await self.run(name, len(ids))
        return ids

    async def run(self, queue: str, count: int) -> None:
        left = count
        done = asyncio.Event()
        worker = Worker(self.address, name="w1")

        @worker.handler(queue, concurrency=10)
        async def handle(job: Job) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set()
            raise FailForGood(f"job {job.data} cannot be done")

        async with worker:
            async with asyncio.timeout(60):
                await done.wait()

    async def waiting(self, queue: str, count: int) -> list[str]:
        async with asyncio.timeout(60):
            while True:
                found = [job.id async for job in self.client.admin.list_jobs(queue, [JobState.CREATED])]
                if len(found) == count:
                    return found
                await asyncio.sleep(0.05)

    async def jobwire(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobwire_server", *arguments),
            env=os.environ | {"JOBWIRE_SERVER": self.address, "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode() + err.decode()


@pytest.fixture
async def shop(api: Api) -> AsyncIterator[Shop]:
    name = uuid4().hex[:8]
    async with Client(api.server.address) as client:
        shop = Shop(client, api.server.address, f"work-{name}", f"dead-{name}")
        await client.admin.create_queue(shop.dead)
        await client.admin.create_queue(shop.work, JobOptions(dead_letter=shop.dead, retry_limit=0))
        yield shop


async def test_a_handler_sees_where_its_dead_letter_comes_from(shop: Shop) -> None:
    [job_id] = await shop.fail(1)
    [letter] = await shop.waiting(shop.dead, 1)
    seen: asyncio.Queue[Job] = asyncio.Queue()
    worker = Worker(shop.address)
    worker.handler(shop.dead)(seen.put)
    async with worker:
        job = await asyncio.wait_for(seen.get(), 60)
        origin, error = job.origin, job.origin and job.origin.last_error
    assert origin is not None and error is not None
    assert (origin.queue, origin.job_id, origin.attempts, origin.redrives) == (shop.work, job_id, 1, 0)
    assert (error.type, error.worker, error.trace) == ("FailForGood", "w1", "")
    stored = await shop.client.get_job(letter, shop.dead)
    failed = await shop.client.get_job(job_id, shop.work)
    assert stored.origin is not None and stored.origin.last_error == failed.errors[0] and failed.errors[0].trace
    assert failed.errors[0].started_at == failed.started_at
    assert failed.options.dead_letter == shop.dead and failed.origin is None


async def test_a_redrive_from_the_command_line(shop: Shop) -> None:
    await shop.fail(3)
    letters = await shop.waiting(shop.dead, 3)
    code, said = await shop.jobwire("redrive", shop.dead, "--dry-run", "--error", "FailForGood")
    assert code == 0 and "would go to" in said and shop.work in said
    assert await shop.waiting(shop.dead, 3) == letters
    code, said = await shop.jobwire("redrive", shop.dead, "--limit", "2", "--json")
    assert code == 0
    assert {json.loads(line)["job_id"] for line in said.splitlines()} == set(letters[1:])
    assert await shop.waiting(shop.dead, 1) == letters[:1]
    assert len(await shop.waiting(shop.work, 2)) == 2
    direct = (await shop.client.publish(shop.dead, None)).job_id
    code, said = await shop.jobwire("redrive", shop.dead)
    assert code == 1 and direct in said and "no origin" in said
    assert await shop.waiting(shop.dead, 1) == [direct]
    code, _ = await shop.jobwire("redrive", shop.dead, "--to", shop.work)
    assert code == 0 and await shop.waiting(shop.dead, 0) == []
    assert (await shop.jobwire("redrive", "nowhere"))[0] == 3
    assert (await shop.jobwire("redrive", shop.dead, "--to", shop.dead))[0] == 2
    assert (await shop.jobwire("redrive", shop.dead, "--after", "soon"))[0] == 2


async def fifo(api: Api, shop: Shop, *keys: str) -> str:
    name = f"fifo-{shop.work}"
    options = jobs.JobOptions(retry_limit=0)
    queue = admin.Queue(name=name, policy=admin.QUEUE_POLICY_KEY_STRICT_FIFO, options=options)
    await api.admin.CreateQueue(admin.CreateQueueRequest(queue=queue))
    await api.queue.Publish(PublishRequest(queue=name, jobs=[JobSpec(key=key) for key in keys for _ in range(2)]))
    await shop.run(name, len(keys))
    async with asyncio.timeout(60):
        while [key.key async for key in shop.client.admin.list_blocked_keys(name)] != sorted(keys):
            await asyncio.sleep(0.05)
    return name


async def test_blocked_keys_from_the_command_line(api: Api, shop: Shop) -> None:
    queue = await fifo(api, shop, "a", "b", "c")
    code, said = await shop.jobwire("keys", "list", queue, "--json")
    assert code == 0
    assert [(key["key"], key["waiting"]) for key in map(json.loads, said.splitlines())] == [
        ("a", 1),
        ("b", 1),
        ("c", 1),
    ]
    code, said = await shop.jobwire("keys", "dead-letter", queue, "a")
    assert code == 1 and "no_dead_letter_queue" in said
    await shop.client.admin.update_queue(queue, JobOptions(dead_letter=shop.dead))
    assert (await shop.jobwire("keys", "dead-letter", queue, "a"))[0] == 0
    assert (await shop.jobwire("keys", "retry", queue, "b"))[0] == 0
    code, said = await shop.jobwire("keys", "skip", queue, "a")
    assert code == 1 and "not_blocked" in said
    assert (await shop.jobwire("keys", "skip", queue, "--all"))[0] == 0
    assert (await shop.jobwire("keys", "skip", queue))[0] == 2
    assert [key async for key in shop.client.admin.list_blocked_keys(queue)] == []
    await shop.waiting(shop.dead, 1)


async def test_pages_of_blocked_keys(api: Api, shop: Shop) -> None:
    queue = await fifo(api, shop, "a", "b", "c")
    first = await api.admin.ListBlockedKeys(pb.ListBlockedKeysRequest(queue=queue, page_size=2))
    assert [key.key for key in first.keys] == ["a", "b"]
    request = pb.ListBlockedKeysRequest(queue=queue, page_size=2, page_token=first.next_page_token)
    second = await api.admin.ListBlockedKeys(request)
    assert [key.key for key in second.keys] == ["c"] and not second.next_page_token
    results = await shop.client.admin.skip_keys(queue, ["c", "x"])
    assert [result.status for result in results] == [UnblockStatus.DONE, UnblockStatus.NOT_BLOCKED]


async def test_what_was_not_delivered_is_listed_page_by_page(api: Api, shop: Shop) -> None:
    strict = f"strict-{shop.work}"
    queue = admin.Queue(name=strict, policy=admin.QUEUE_POLICY_KEY_STRICT_FIFO)
    await api.admin.CreateQueue(admin.CreateQueueRequest(queue=queue))
    await shop.client.admin.update_queue(shop.work, JobOptions(dead_letter=strict))
    ids = await shop.fail(3)
    async with asyncio.timeout(60):
        while len(found := [letter async for letter in shop.client.admin.list_undelivered(strict)]) < 3:
            await asyncio.sleep(0.05)
    assert {letter.job_id for letter in found} == set(ids)
    assert {(letter.queue, letter.refusal) for letter in found} == {(shop.work, LetterRefusal.KEY_MISSING)}
    seen = []
    request = pb.ListUndeliveredRequest(dead_letter=strict, page_size=2)
    while True:
        page = await api.admin.ListUndelivered(request)
        seen += [letter.job_id for letter in page.letters]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert sorted(seen) == sorted(ids)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.RedriveJobsRequest(queue="a b"), "queue"),
        (pb.RedriveJobsRequest(queue="a", destination="a"), "destination"),
        (pb.RedriveJobsRequest(queue="a", destination="a b"), "destination"),
        (pb.RedriveJobsRequest(queue="a", rate=-1), "rate"),
        (pb.RedriveJobsRequest(queue="a", rate=float("nan")), "rate"),
        (pb.RedriveJobsRequest(queue="a", limit=-1), "limit"),
        (pb.RedriveJobsRequest(queue="a", page_token="w.9.9"), "page_token"),
        (pb.RedriveJobsRequest(queue="a", page_token=f"w.{'9' * 18}.9."), "page_token"),
        (pb.RedriveJobsRequest(queue="a", filter=pb.RedriveFilter(origin_queue="a b")), "filter.origin_queue"),
        (pb.ListUndeliveredRequest(page_size=501), "page_size"),
        (pb.ListUndeliveredRequest(page_token="x"), "page_token"),
        (pb.ListBlockedKeysRequest(queue=""), "queue"),
        (pb.UnblockKeysRequest(queue="a", action=pb.UNBLOCK_ACTION_SKIP), "keys"),
        (pb.UnblockKeysRequest(queue="a", keys=["a"]), "action"),
        (pb.UnblockKeysRequest(queue="a", keys=["a" * 201], action=pb.UNBLOCK_ACTION_SKIP), "keys[0]"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, request_: object, field: str) -> None:
    method = type(request_).__name__.removesuffix("Request")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(api.admin, method)(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(refused.value.details()).startswith(field)

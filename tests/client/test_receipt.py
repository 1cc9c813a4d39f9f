"""A job that was delivered before begins when the server knows that it has arrived, since it may kill its worker."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from jobwire import Job
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.conftest import Working
from tests.client.scripted_server import RefusalError, ScriptedServer, all_applied, delivery


class Door:
    """Holds Acks without statements until it is opened, or refuses them."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.open = asyncio.Event()
        self.receipts: list[int] = []
        self._refuses = refuses

    async def __call__(self, request: pb.AckRequest) -> pb.AckResponse:
        if not request.items:
            self.receipts.append(request.last_sequence)
            await self.open.wait()
            if self._refuses:
                raise RefusalError(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        return all_applied(request)


@pytest.mark.parametrize("refuses", [False, True])
async def test_only_a_job_delivered_before_waits_for_its_receipt(
    server: ScriptedServer, working: Working, refuses: bool
) -> None:
    server.answer_ack = door = Door(refuses=refuses)
    begun: list[str] = []

    async def handle(job: Job) -> None:
        begun.append(job.id)

    async with working(handle, concurrency=10):
        stream = await server.opened()
        await stream.deliver(delivery("again", attempt=2), delivery("and-again", attempt=7), delivery("new"))
        await server.settled("new")
        assert begun == ["job-of-new"]
        assert door.receipts == [2], "one for all that came together, and it names their event"
        door.open.set()
        await server.settled("again")
        await server.settled("and-again")
    assert sorted(begun) == ["job-of-again", "job-of-and-again", "job-of-new"]


async def test_a_job_that_is_cancelled_before_its_receipt_is_known_never_begins(
    server: ScriptedServer, working: Working
) -> None:
    server.answer_ack = door = Door()

    async def handle(_: Job) -> None:
        pytest.fail("it was to stop before it had begun")

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("again", attempt=2))
        await stream.cancel("again", pb.CANCEL_REASON_REQUESTED)
        item = await server.settled("again")
        assert item.HasField("release")
        door.open.set()

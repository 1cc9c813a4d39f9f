"""Shares, the order to leave and the list of sessions, over gRPC and across two servers."""

from __future__ import annotations

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1.session_pb2 import (
    DrainSessionRequest,
    DrainSessionResponse,
    ListSessionsRequest,
    QueueShare,
    Session,
)

from .conftest import Api, Serve
from .refusals import refused
from .worker import Worker, publish

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


async def listed(api: Api, queue: str, **said: int) -> list[Session]:
    """All sessions of a queue, page by page."""
    sessions: list[Session] = []
    request = ListSessionsRequest(queue=queue, **said)
    while True:
        page = await api.admin.ListSessions(request)
        assert not request.page_size or len(page.sessions) <= request.page_size
        sessions += page.sessions
        if not page.next_page_token:
            return sessions
        request.page_token = page.next_page_token


async def test_shares_bound_what_is_delivered(api: Api) -> None:
    for priority in (0, 5, 9):
        await publish(api, 3, "graded", priority=priority)
    await publish(api, 9, "plain")
    shares = [QueueShare(queue="graded", max_in_flight=2, min_priority=5, max_priority=8)]
    async with Worker(api, "graded", "plain", max_in_flight=6, shares=shares) as worker:
        graded = [job for job in await worker.receive(6) if job.queue == "graded"]
        assert [job.priority for job in graded] == [5, 5]
        assert len(worker.deliveries) == 6
        await worker.complete(*worker.deliveries)
        await worker.receive(12)
        assert [job.priority for job in worker.deliveries if job.queue == "graded"] == [5, 5, 5]
        [session] = await listed(api, "graded")
        assert list(session.shares) == [QueueShare(weight=1, **_fields(shares[0]))]


def _fields(share: QueueShare) -> dict[str, object]:
    return {field.name: value for field, value in share.ListFields()}


async def test_the_list_names_what_runs_page_by_page(api: Api) -> None:
    ids = await publish(api, 3, "listed")
    async with (
        Worker(api, "listed", max_in_flight=3) as one,
        Worker(api, "listed", "else") as two,
        Worker(api, "else") as other,
    ):
        await one.until(lambda: len(one.deliveries) + len(two.deliveries) == 3)
        sessions = await listed(api, "listed", page_size=1)
        assert [session.id for session in sessions] == sorted([one.session_id, two.session_id])
        assert other.session_id not in {session.id for session in sessions}
        assert sorted(job.job_id for session in sessions for job in session.running) == sorted(ids)
        mine = next(session for session in sessions if session.id == one.session_id)
        assert (mine.worker, list(mine.queues), mine.max_in_flight, mine.epoch) == ("tester", ["listed"], 3, 1)
        assert mine.in_flight == len(one.deliveries) == len(mine.running)
        assert all(job.queue == "listed" and job.attempt == 1 for job in mine.running)
        assert not mine.HasField("detach_time") and not mine.HasField("quiet_time")
        [bare] = [session for session in await listed(api, "listed", max_running=0) if session.id == one.session_id]
        assert (bare.in_flight, len(bare.running)) == (mine.in_flight, 0)


async def test_a_worker_is_asked_to_leave_at_another_server(serve: Serve) -> None:
    async with serve() as here, serve() as there:
        await publish(here)
        async with Worker(here) as worker:
            [running] = await worker.receive(1)
            request = DrainSessionRequest(session_id=worker.session_id)
            asked: DrainSessionResponse = await there.admin.DrainSession(request)
            assert asked.quiet_time != Timestamp()
            await worker.until(lambda: worker.events("quiet"))
            assert await there.admin.DrainSession(request) == asked
            [session] = await listed(there, "work")
            assert session.quiet_time == asked.quiet_time
            await publish(there, 2)
            await worker.complete(running)
            await worker.report(close_session=True)
            await worker.finish()
            assert (worker.error, len(worker.deliveries)) == (None, 1)
        assert await listed(there, "work") == []


async def test_nobody_asks_a_session_that_is_not(api: Api) -> None:
    answer = await refused(api.admin.DrainSession(DrainSessionRequest(session_id=ID)))
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_LOST")

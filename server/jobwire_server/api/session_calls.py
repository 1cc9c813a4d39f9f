"""The calls of AdminService about sessions."""

# ruff: noqa: N802, ARG002  (names and arguments are gRPC's)

from __future__ import annotations

from typing import Any

import grpc.aio

from jobwire.v1 import session_pb2 as pb
from jobwire_server.api import session_requests as requests
from jobwire_server.api.answers import timestamp
from jobwire_server.api.calls import this_call
from jobwire_server.broker.broker import Broker
from jobwire_server.domain.sessions import ListedSession
from jobwire_server.domain.shares import Share

Context = grpc.aio.ServicerContext[Any, Any]


class SessionCalls:
    """ListSessions and DrainSession."""

    _broker: Broker

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        page = requests.session_page(request)
        found = await self._broker.sessions.list(page.queue, page.after, page.size + 1, page.running)
        sessions = found[: page.size]
        return pb.ListSessionsResponse(
            sessions=map(_session, sessions), next_page_token=str(sessions[-1].id) if len(found) > page.size else ""
        )

    async def DrainSession(self, request: pb.DrainSessionRequest, context: Context) -> pb.DrainSessionResponse:
        session_id = requests.drained_session(request)
        this_call().note(session_id=str(session_id))
        return pb.DrainSessionResponse(quiet_time=timestamp(await self._broker.sessions.drain(session_id)))


def _session(session: ListedSession) -> pb.Session:
    return pb.Session(
        id=str(session.id),
        worker=session.worker,
        queues=session.queues,
        shares=map(_share, session.shares),
        max_in_flight=session.max_in_flight,
        in_flight=session.in_flight,
        running=[
            pb.RunningJob(queue=job.queue, job_id=str(job.job_id), attempt=job.attempt, start_time=timestamp(job.since))
            for job in session.running
        ],
        replica=str(session.owner),
        epoch=session.epoch,
        open_time=timestamp(session.opened_at),
        attach_time=timestamp(session.attached_at),
        detach_time=timestamp(session.detached_at),
        renew_time=timestamp(session.renewed_at),
        quiet_time=timestamp(session.quiet_at),
    )


def _share(share: Share) -> pb.QueueShare:
    return pb.QueueShare(
        queue=share.queue,
        weight=share.weight,
        max_in_flight=share.max_in_flight,
        min_priority=share.min_priority,
        max_priority=share.max_priority,
    )

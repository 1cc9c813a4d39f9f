"""One life of a worker: its sessions from the start to an orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from jobwire.connection import Connection
from jobwire.credentials import Token
from jobwire.running import Runner
from jobwire.session import Session
from jobwire.shares import QueueShare, share_message
from jobwire.v1.queue_service_pb2 import SubscribeRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Post:
    """What a worker does for one queue, or for several that share its places."""

    shares: Sequence[QueueShare]
    concurrency: int
    runner: Runner


class Lifetime:
    """Works from the moment it is made until it is told to stop; `task` is done when all is put away."""

    def __init__(
        self,
        target: str,
        tls: grpc.ChannelCredentials | None,
        token: Token | None,
        terms: SubscribeRequest,
        posts: Sequence[Post],
        stop_grace: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_grace = stop_grace
        self._posts = posts
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        self._leave_asked = asyncio.Event()
        # With pick_first Acks go to the replica that serves the streams.
        self._connection = Connection(target, tls=tls, token=token, balancing="pick_first")
        self._sessions: list[Session] = []
        for post in posts:
            request = SubscribeRequest(queues=[share.queue for share in post.shares])
            if any(share != QueueShare(share.queue) for share in post.shares):
                request.shares.extend(map(share_message, post.shares))
            request.MergeFrom(terms)
            self._sessions.append(
                Session(
                    self._connection,
                    request,
                    concurrency=post.concurrency,
                    runner=post.runner,
                    on_quiet=self._leave_asked.set,
                )
            )
        self.task: asyncio.Task[None] = asyncio.create_task(self._live(), name="jobwire worker")

    def stop(self, *, now: bool) -> None:
        """Ask for the end, from any thread."""
        for event in (self._stop_asked, self._hurry) if now else (self._stop_asked,):
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(event.set)

    async def stop_asked(self) -> None:
        """Wait until the end has begun, whoever began it."""
        await self._stop_asked.wait()

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stop_asked.is_set()

    async def _live(self) -> None:
        runs = [asyncio.create_task(session.run(), name="jobwire session") for session in self._sessions]
        asked = asyncio.create_task(self._stop_asked.wait())
        leaving = asyncio.create_task(self._leave())
        try:
            await asyncio.wait([asked, leaving, *runs], return_when=asyncio.FIRST_COMPLETED)
            # If a session cannot go on, the worker does not go on as half a worker.
            self._stop_asked.set()
            failures = [run.exception() for run in runs if run.done() and not run.cancelled()]
            await asyncio.gather(*(session.stop(self._stop_grace, self._hurry) for session in self._sessions))
        finally:
            for task in (asked, leaving, *runs):
                task.cancel()
            await asyncio.gather(leaving, *runs, return_exceptions=True)
            for post in self._posts:
                await post.runner.close()
            await self._connection.close()
        for failure in failures:
            if failure is not None:
                raise _only(failure)

    async def _leave(self) -> None:
        """If the server asks for it, take no more jobs, and finish those in hand, however long that takes."""
        await self._leave_asked.wait()
        log.info("the worker was asked to leave: finishing what runs")
        await asyncio.gather(*(session.finish() for session in self._sessions))


def _only(failure: BaseException) -> BaseException:
    """Unpack what a task group wrapped."""
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    return failure

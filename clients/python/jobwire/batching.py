"""Gathers the jobs of a queue for a handler that takes several at once.

To the rest of the worker each job is a run of its own, from its delivery to its outcome: it is cancelled, reported on
and settled without regard to its neighbours. Only the handler sees them together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

from jobwire.job import Link
from jobwire.model import Progress
from jobwire.outcome import Completed, Outcome, Stopped, bad_result
from jobwire.running import Batch, Given, Runner
from jobwire.v1.queue_service_pb2 import Delivery

_TIME_TO_END = 2.0
"""How long a handler that has settled all its jobs may take to end when the worker stops, in seconds."""


class BatchRunner:
    """Runs a handler on up to `size` jobs, or on those that came within `wait` seconds of the first."""

    def __init__(self, runner: Runner, size: int, wait: float) -> None:
        self.cancels_tasks = runner.cancels_tasks
        self._runner = runner
        self._size = size
        self._wait = wait
        self._gathering: list[_Member] = []
        self._timer: asyncio.TimerHandle | None = None
        self._calls: set[_Call] = set()

    async def run(self, given: Given, link: Link | Batch) -> Outcome:
        """Have one job run together with others."""
        assert isinstance(given, Delivery)
        assert not isinstance(link, Batch)
        member = _Member(given, link)
        self._gather(member)
        try:
            return await asyncio.shield(member.outcome)
        except asyncio.CancelledError:
            if not self.cancels_tasks:
                return Stopped()
            self._stop(member)
        try:
            return await asyncio.shield(member.outcome)
        except asyncio.CancelledError:
            # No more patience.
            if member.call is not None:
                member.call.give_up()
            return Stopped()

    async def close(self) -> None:
        """End handlers that work on although all their jobs are settled, and what the inner runner keeps."""
        for call in self._calls:
            call.give_up()
        if self._calls:
            await asyncio.wait([call.task for call in self._calls], timeout=_TIME_TO_END)
        await self._runner.close()

    def _gather(self, member: _Member) -> None:
        self._gathering.append(member)
        if len(self._gathering) == self._size:
            self._begin()
        elif len(self._gathering) == 1:
            self._timer = asyncio.get_running_loop().call_later(self._wait, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        members, self._gathering = self._gathering, []
        if members:
            call = _Call(self._runner, members)
            self._calls.add(call)
            call.task.add_done_callback(lambda _: self._calls.discard(call))

    def _stop(self, member: _Member) -> None:
        member.cancelled = True
        if member.call is not None:
            member.call.stop(member)
        else:
            self._gathering.remove(member)
            member.settle(Stopped())


class _Member:
    """One job of a batch: a MemberLink over its own link. Made in the event loop, used from any thread."""

    def __init__(self, delivery: Delivery, link: Link) -> None:
        self.delivery = delivery
        self.settled = False
        self.call: _Call | None = None
        """The run of the handler that it is part of, as soon as there is one."""
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._link = link
        self._told = False

    @property
    def cancelled(self) -> bool:
        return self._told or self._link.cancelled

    @cancelled.setter
    def cancelled(self, told: bool) -> None:
        self._told = told

    def report(self, progress: Progress, checkpoint: str | None = None) -> None:
        self._link.report(progress, checkpoint)

    def extend(self, seconds: float) -> Awaitable[None]:
        return self._link.extend(seconds)

    def settle(self, outcome: Outcome) -> None:
        if not self.settled:
            self.settled = True
            # RuntimeError: the loop is closed. The worker is gone, and the lease with it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end, outcome)

    def _end(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class _Call:
    """One run of the handler."""

    def __init__(self, runner: Runner, members: list[_Member]) -> None:
        self._members = members
        self._batch = Batch(members)
        for member in members:
            member.call = self
        first = members[0].delivery
        self.task = asyncio.create_task(self._see_through(runner), name=f"jobwire batch from {first.job_id}")

    def stop(self, member: _Member) -> None:
        """One of the jobs is to stop; the handler itself only if nothing else is left to it."""
        if self._batch.cancelled:
            # As often as there are jobs to stop, but they come in one turn of the event loop, which cancels once.
            self.task.cancel()
        else:
            self._batch.on_stop(self._members.index(member))

    def give_up(self) -> None:
        """No more patience with one of the jobs: the same once more, without another word to a handler that goes on."""
        if self._batch.cancelled:
            self.task.cancel()

    async def _see_through(self, runner: Runner) -> None:
        try:
            outcome = await runner.run([member.delivery for member in self._members], self._batch)
        except asyncio.CancelledError:
            # Before the handler began; a runner turns what comes later into an outcome.
            outcome = Stopped()
        if isinstance(outcome, Completed) and outcome.output:
            outcome = bad_result("a handler of batches settles each job by itself, and returns nothing")
        for member in self._members:
            member.settle(Stopped() if member.cancelled and isinstance(outcome, Completed) else outcome)

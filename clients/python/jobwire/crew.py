"""The runs of one queue's handler: each delivery in hand, from its start to the report of its end.

A delivery that is dropped (its lease is gone) is no longer reported on, but its handler may need time to end; until
then its place is not free, and the server is asked for fewer jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jobwire.acking import Acker
from jobwire.outcome import Completed, Failed, Outcome, Released, Stopped, StopReason, raised, settling
from jobwire.reporting import Reporter
from jobwire.running import Runner
from jobwire.v1.queue_service_pb2 import Delivery

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Run:
    """One delivery in the hands of a handler."""

    job_id: str
    reporter: Reporter
    task: asyncio.Task[Outcome]
    reason: StopReason | None = None
    dropped: bool = False


class Crew:
    """At most `size` runs at once."""

    def __init__(self, size: int, runner: Runner, acker: Acker) -> None:
        self._size = size
        self._runner = runner
        self._acker = acker
        self._runs: dict[str, _Run] = {}
        self._dropped = 0
        self._one_ended = asyncio.Event()

    @property
    def places(self) -> int:
        """How many deliveries there may be at once, now: the size less what runs on without a lease."""
        return self._size - self._dropped

    @property
    def full(self) -> bool:
        """Whether no further delivery may be started."""
        return len(self._runs) >= self._size

    def runs(self, handle: str) -> bool:
        """Whether the handler of a delivery still runs."""
        return handle in self._runs

    def start(self, delivery: Delivery) -> None:
        """Run the handler on a delivery."""
        handle = delivery.handle
        reporter = Reporter(self._acker, handle)
        task = asyncio.create_task(self._run(delivery, reporter), name=f"jobwire {delivery.queue} {delivery.job_id}")
        self._runs[handle] = _Run(delivery.job_id, reporter, task)
        task.add_done_callback(lambda task: self._ended(handle, task))

    async def _run(self, delivery: Delivery, reporter: Reporter) -> Outcome:
        if delivery.attempt > 1:
            # It may be the job that kills its worker, at once: that is counted only when its receipt is known.
            await self._acker.receipt()
        return await self._runner.run(delivery, reporter)

    def stop(self, handle: str, reason: StopReason) -> None:
        """Tell a handler to stop. How it ends is reported as ever."""
        run = self._runs.get(handle)
        if run is None or run.reason is not None:
            return
        log.info("job %s: told to stop (%s)", run.job_id, reason.name.lower())
        run.reason = reason
        run.reporter.cancelled = True
        if self._runner.cancels_tasks:
            run.task.cancel()

    def stop_all(self, reason: StopReason) -> None:
        """Tell all handlers to stop."""
        for handle in list(self._runs):
            self.stop(handle, reason)

    def drop(self, handles: Iterable[str]) -> None:
        """Stop handlers whose deliveries are gone."""
        for handle in handles:
            run = self._runs.get(handle)
            if run is not None and not run.dropped:
                run.dropped = True
                self._dropped += 1
                self._acker.forget(handle)
                self.stop(handle, StopReason.LEASE_LOST)

    def drop_all(self) -> None:
        """Stop all handlers: their session is gone."""
        self.drop(list(self._runs))

    def abandon(self) -> None:
        """Give back what did not stop in time, though its handler may still run, and wait no longer."""
        for handle, run in list(self._runs.items()):
            log.warning("job %s: its handler did not stop in time; the job is given back", run.job_id)
            if not run.dropped:
                run.dropped = True
                self._dropped += 1
                self._acker.settle(handle, Released())
            run.reporter.cancelled = True
            run.task.cancel()

    async def idle(self) -> None:
        """Wait until nothing runs."""
        await self._until(lambda: not self._runs)

    async def has_place(self) -> None:
        """Wait until at least one delivery may come."""
        await self._until(lambda: self.places > 0)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._one_ended.clear()
            await self._one_ended.wait()

    def _ended(self, handle: str, task: asyncio.Task[Outcome]) -> None:
        run = self._runs.pop(handle)
        run.reporter.close()
        if run.dropped:
            self._dropped -= 1
            self._acker.look_again()
        else:
            outcome = settling(_result(task), run.reason)
            _tell(run.job_id, outcome)
            self._acker.settle(handle, outcome)
        self._one_ended.set()


def _result(task: asyncio.Task[Outcome]) -> Outcome:
    if task.cancelled():
        # Before its first step; a runner turns what comes later into an outcome.
        return Stopped()
    error = task.exception()
    return raised(error, told_to_stop=False) if error is not None else task.result()


def _tell(job_id: str, outcome: Completed | Failed | Released) -> None:
    match outcome:
        case Completed():
            log.debug("job %s: completed", job_id)
        case Released():
            log.info("job %s: given back", job_id)
        case Failed(type_, message, trace, permanent):
            how = "failed for good" if permanent else "failed"
            log.warning("job %s: %s: %s: %s%s", job_id, how, type_, message, f"\n{trace}".rstrip())

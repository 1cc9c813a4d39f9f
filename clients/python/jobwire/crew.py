"""The runs of one queue's handler: each delivery in hand, from its start to the report of its end.

A delivery that is dropped (its lease is gone) is no longer reported on, but its handler may need time to end; until
then its place is not free, and the server is asked for fewer jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jobwire.acking import Acker
from jobwire.outcome import Completed, Failed, Outcome, Released, Settling, Stopped, StopReason, raised, settling
from jobwire.reporting import Reporter
from jobwire.running import Runner
from jobwire.v1.queue_service_pb2 import Delivery

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Run:
    """One delivery in the hands of a handler."""

    delivery: Delivery
    reporter: Reporter
    task: asyncio.Task[None] | None = None
    stoppable: bool = False
    """Whether a cancellation of the task would end the handler, or what it waits for to begin."""
    reason: StopReason | None = None
    dropped: bool = False


class Crew:
    """At most `size` runs at once."""

    def __init__(self, size: int, runner: Runner, acker: Acker) -> None:
        self._loop = asyncio.get_running_loop()
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

    def start(self, delivery: Delivery, handle: str, job_id: str) -> None:
        """Run the handler on a delivery."""
        run = self._runs[handle] = _Run(delivery, Reporter(self._acker, handle))
        # Reports its own end: a callback of the task would cost half as much as the task itself.
        run.task = self._loop.create_task(self._see_through(run, handle), name=f"jobwire {job_id}")

    async def _see_through(self, run: _Run, handle: str) -> None:
        run.stoppable = True
        outcome: Outcome
        try:
            if run.reason is not None:
                outcome = Stopped()
            else:
                if run.delivery.attempt > 1:
                    # It may be the job that kills its worker, at once: that is counted only when its receipt is known.
                    await self._acker.receipt()
                outcome = await self._runner.run(run.delivery, run.reporter)
        except asyncio.CancelledError:
            # Before the handler began; a runner turns what comes later into an outcome.
            outcome = Stopped()
        except BaseException as error:  # noqa: BLE001 - whatever broke, the job gets an end
            outcome = raised(error, told_to_stop=False)
        # What stops a handler must not cut short the way of its checkpoint; that is over when the run is dropped.
        run.stoppable = False
        if run.reporter.leaves and not run.dropped and not isinstance(outcome, Completed):
            with contextlib.suppress(asyncio.CancelledError):
                await run.reporter.left()
        self._ended(handle, run, outcome)

    def stop(self, handle: str, reason: StopReason) -> None:
        """Tell a handler to stop. How it ends is reported as ever."""
        run = self._runs.get(handle)
        if run is None or run.reason is not None:
            return
        log.info("job %s: told to stop (%s)", run.delivery.job_id, reason.name.lower())
        run.reason = reason
        run.reporter.cancelled = True
        if self._runner.cancels_tasks:
            self._cancel(run)

    def stop_all(self, reason: StopReason) -> None:
        """Tell all handlers to stop."""
        for handle in list(self._runs):
            self.stop(handle, reason)

    def drop(self, handles: Iterable[str]) -> None:
        """Stop handlers whose deliveries are gone."""
        for handle in handles:
            run = self._runs.get(handle)
            if run is not None and not run.dropped:
                self._leave_out(run)
                self._acker.forget(handle)
                self.stop(handle, StopReason.LEASE_LOST)

    def drop_all(self) -> None:
        """Stop all handlers: their session is gone."""
        self.drop(list(self._runs))

    def abandon(self) -> None:
        """Give back what did not stop in time, though its handler may still run, and wait no longer."""
        for handle, run in list(self._runs.items()):
            log.warning("job %s: its handler did not stop in time; the job is given back", run.delivery.job_id)
            if not run.dropped:
                self._leave_out(run)
                self._acker.settle(handle, Released())
            run.reporter.cancelled = True
            self._cancel(run)

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

    def _leave_out(self, run: _Run) -> None:
        run.dropped = True
        run.reporter.close()
        self._dropped += 1

    @staticmethod
    def _cancel(run: _Run) -> None:
        # A task that is cancelled before its first step would never report an end.
        if run.stoppable and run.task is not None:
            run.task.cancel()

    def _ended(self, handle: str, run: _Run, outcome: Outcome) -> None:
        del self._runs[handle]
        run.reporter.close()
        if run.dropped:
            self._dropped -= 1
            self._acker.look_again()
        else:
            said = settling(outcome, run.reason)
            _tell(run.delivery, said)
            self._acker.settle(handle, said)
        self._one_ended.set()


def _tell(delivery: Delivery, outcome: Settling) -> None:
    match outcome:
        case Completed():
            if log.isEnabledFor(logging.DEBUG):
                log.debug("job %s: completed", delivery.job_id)
        case Released():
            log.info("job %s: given back", delivery.job_id)
        case Failed(type_, message, trace, permanent):
            how = "failed for good" if permanent else "failed"
            log.warning("job %s: %s: %s: %s%s", delivery.job_id, how, type_, message, f"\n{trace}".rstrip())

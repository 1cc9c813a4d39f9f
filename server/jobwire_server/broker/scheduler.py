"""Schedules: what operators do with them, and their jobs.

Any replica looks for what is due, and several do not disturb each other. A due time has its turn in one transaction
that moves the schedule on to its next due time, on condition that it stood at this one, and stores the job. So each has
one, whatever crashes, and however many replicas believe that it is theirs; and no clock counts but the database's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from uuid import UUID

import orjson
import structlog

from jobwire_server.domain import limits, schedules
from jobwire_server.domain.errors import (
    DataTooLarge,
    FieldViolation,
    InvalidArgument,
    JobwireError,
    LockTimeout,
    NotFound,
    QueueFull,
    ScheduleNotFound,
)
from jobwire_server.domain.jobs import NewJob, NotCreated, Published
from jobwire_server.domain.schedules import Every, Once, Plan, Schedule, ScheduleSpec, Timing
from jobwire_server.store import schedules as store
from jobwire_server.store.database import Database
from jobwire_server.store.schedules import Turn

from .publisher import Publisher
from .queue_book import QueueBook
from .terms import Stats

log = structlog.get_logger(__name__)

_LOOKED_AT_ONCE = 20
_RUNS_AT_ONCE = 100
_BYTES_AT_ONCE = 1024 * 1024
"""How many runs that have fallen behind one transaction makes up for."""
_NO_ROOM_MS = 5_000
_OUR_FAULT_MS = 60_000
"""After how long a schedule is looked at again whose queue had no room, or that met an error of ours."""

NAME_HEADER, DUE_HEADER = "jobwire-schedule", "jobwire-due-time"
OWN_HEADERS = 2
"""What a schedule's jobs carry besides their own headers."""


class Scheduler:
    """`on_changed()` is called when something may be due sooner than is known."""

    def __init__(
        self,
        database: Database,
        queues: QueueBook,
        publisher: Publisher,
        stats: Stats,
        on_changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._queues = queues
        self._publisher = publisher
        self._stats = stats
        self._on_changed = on_changed

    # What operators do.

    async def put(self, spec: ScheduleSpec) -> tuple[Schedule, bool]:
        """Makes a schedule or replaces what it was; whether it was made. Its queue is created if need be.

        While the timing stays the same, what is due stays so.
        """
        _check_size(await self._queues.limit_for(spec.queue), spec.job, "schedule.job.data")
        # What is refused must not have made its queue.
        _next(spec, await store.now(self._database), await store.get(self._database, spec.name))
        await self._queues.for_publish(spec.queue)
        while True:
            async with store.editing(self._database, spec.name) as edit:
                timing, due = _next(spec, edit.now, found := edit.found)
                made = await edit.put(replace(spec, timing=timing), due)
            if made:
                break
        self._on_changed()
        return await self.get(spec.name), found is None

    async def get(self, name: str) -> Schedule:
        """A schedule. ScheduleNotFound."""
        schedule = await store.get(self._database, name)
        if schedule is None:
            raise ScheduleNotFound(name)
        return schedule

    async def list(self, queue: str | None, after: str | None, limit: int) -> list[Schedule]:
        """A page of schedules by name, of all queues or of one."""
        return await store.list_schedules(self._database, queue, after, limit)

    async def delete(self, name: str) -> None:
        """Deletes a schedule, not its jobs. ScheduleNotFound."""
        if not await store.delete(self._database, name):
            raise ScheduleNotFound(name)

    async def pause(self, name: str) -> Schedule:
        """Pauses a schedule: what would be due until it is resumed is not made up for. ScheduleNotFound."""
        await store.pause(self._database, name)
        return await self.get(name)

    async def resume(self, name: str) -> Schedule:
        """Resumes a schedule; what is due from now on counts. ScheduleNotFound."""
        async with store.editing(self._database, name) as edit:
            if edit.found is None:
                raise ScheduleNotFound(name)
            if edit.found.paused:
                await edit.resume(schedules.after(edit.found.spec.timing, _since(edit.now, edit.found)))
        self._on_changed()
        return await self.get(name)

    async def run(self, name: str, job_id: UUID, *, repeatable: bool) -> Published:
        """Makes a job now, beside all due times, paused or not. ScheduleNotFound, and whatever Publish says."""
        schedule = await self.get(name)
        queue = await self._queues.find(schedule.spec.queue)
        job = _job(schedule, job_id, None)._replace(client_id=repeatable)
        _check_size(queue.max_data_bytes, job, "data")
        [published] = await self._publisher.publish(queue, [job])
        if published.created:
            await store.note_run(self._database, schedule, job_id)
        return published

    async def preview(self, timing: Timing, count: int) -> Sequence[datetime]:
        """The next due times of a timing that is not stored. InvalidArgument if there is none."""
        now = await store.now(self._database)
        timing = _begun(timing, now)
        if due := list(islice(timing.walk(now), count)):
            return due
        raise _past(timing, now)

    async def preview_stored(self, name: str, count: int) -> tuple[Schedule, Sequence[datetime]]:
        """The next due times of a schedule; if it is paused, those it would have if it were resumed now."""
        schedule = await self.get(name)
        timing = schedule.spec.timing
        first = schedule.next_run_at
        if first is None:
            return schedule, list(islice(timing.walk(_since(await store.now(self._database), schedule)), count))
        return schedule, [first, *islice(timing.walk(first), count - 1)]

    # What time brings.

    async def run_due(self) -> bool:
        """Gives all that is due its turn; whether none is left but what another replica has in hand."""
        while due := await store.due(self._database, _LOOKED_AT_ONCE):
            moved = [await self._turn(schedule, now) for schedule, now in due if schedule is not None]
            if not any(moved):
                return False
        return True

    async def _turn(self, schedule: Schedule, now: datetime) -> bool:
        """The turn of a schedule that is due; whether it was had, here."""
        assert schedule.next_run_at is not None
        most = max(1, min(_RUNS_AT_ONCE, _BYTES_AT_ONCE // max(1, len(schedule.spec.job.data))))
        try:
            # In a thread: to find the last thousand of an old schedule takes a while.
            plan = await asyncio.to_thread(schedules.plan, schedule.spec, schedule.next_run_at, now, most)
            return await self._have(schedule, plan)
        except JobwireError:
            raise
        except Exception:
            log.exception("a schedule failed unexpectedly", schedule=schedule.spec.name)
            return await self._put_off(schedule, "internal error; the server's log has more", _OUR_FAULT_MS)

    async def _have(self, schedule: Schedule, plan: Plan) -> bool:
        """Does as planned; where there is no room for all, or what hinders is known, as much as can be done."""
        first = Plan(plan.runs[:1], plan.runs[1]) if len(plan.runs) > 1 else plan
        try:
            try:
                return await self._do(schedule, plan)
            except (QueueFull, InvalidArgument):
                if first is plan:
                    raise
                return await self._do(schedule, first)
        except (QueueFull, LockTimeout) as error:
            return await self._put_off(schedule, error.message, _NO_ROOM_MS)
        except (InvalidArgument, NotFound) as error:
            return await self._give_up(schedule, first, error.message)

    async def _do(self, schedule: Schedule, plan: Plan) -> bool:
        had = await (self._publish(schedule, plan) if plan.runs else self._move(schedule, Turn(plan.next)))
        if had:
            self._stats["schedule_runs"] += len(plan.runs)
            due, goes_on = schedule.next_run_at, plan.runs[0] if plan.runs else plan.next
            if due != goes_on:
                self._stats["schedule_gaps"] += 1
                log.warning("due times were missed", schedule=schedule.spec.name, first=str(due), goes_on=str(goes_on))
        return had

    async def _publish(self, schedule: Schedule, plan: Plan) -> bool:
        queue = await self._queues.find(schedule.spec.queue)
        jobs = [_job(schedule, schedule.job_id(due), due) for due in plan.runs]
        _check_size(queue.max_data_bytes, jobs[0], "data")
        turn = Turn(plan.next, len(jobs), plan.runs[-1], jobs[-1].id)
        condition = partial(store.take_turn, self._database, schedule=schedule, turn=turn)
        results = await self._publisher.publish_if(queue, jobs, condition)
        if results is None:
            return False
        # An id that is known is that of this very due time.
        refused = [result for result in results if result.reason not in (None, NotCreated.DUPLICATE_ID)]
        if refused:
            made = [result.id for result in results if result not in refused]
            await store.note_refused(
                self._database, schedule, len(refused), made[-1] if made else None, _why(refused[-1])
            )
        return True

    async def _put_off(self, schedule: Schedule, why: str, pause_ms: int) -> bool:
        log.warning("a schedule was put off", schedule=schedule.spec.name, error=why, pause_ms=pause_ms)
        self._stats["schedule_errors"] += 1
        return await self._move(schedule, Turn(schedule.next_run_at, error=_cut(why), pause_ms=pause_ms))

    async def _give_up(self, schedule: Schedule, plan: Plan, why: str) -> bool:
        """The due time goes without a job, and the schedule goes on."""
        log.warning("a schedule could not run", schedule=schedule.spec.name, error=why)
        self._stats["schedule_errors"] += 1
        return await self._move(schedule, Turn(plan.next, error=_cut(why)))

    async def _move(self, schedule: Schedule, turn: Turn) -> bool:
        async with self._database.connection() as connection:
            return await store.take_turn(self._database, connection, schedule, turn)


def _job(schedule: Schedule, job_id: UUID, due: datetime | None) -> NewJob:
    job = schedule.spec.job
    headers = orjson.loads(job.headers) if job.headers else {}
    headers[NAME_HEADER] = schedule.spec.name
    if due is not None:
        headers[DUE_HEADER] = due.isoformat()
    return job._replace(id=job_id, client_id=True, headers=orjson.dumps(headers).decode())


def _check_size(limit: int, job: NewJob, at: str) -> None:
    size = len(job.data.encode())
    if size > limit:
        raise DataTooLarge(at, size, limit)


def _next(spec: ScheduleSpec, now: datetime, found: Schedule | None) -> tuple[Timing, datetime | None]:
    """The timing of a schedule that is put, and its first due time. InvalidArgument if it has none."""
    timing = _begun(spec.timing, now)
    if found is not None and _same(found.spec.timing, timing):
        return found.spec.timing, found.next_run_at
    due = schedules.after(timing, _since(now, found))
    if due is None:
        raise _past(timing, now)
    return timing, due


def _begun(timing: Timing, now: datetime) -> Timing:
    """An interval counts from now."""
    return Every(timing.ms, now) if isinstance(timing, Every) else timing


def _same(old: Timing, new: Timing) -> bool:
    if isinstance(old, Every) and isinstance(new, Every):
        return old.ms == new.ms
    return old == new


def _since(now: datetime, found: Schedule | None) -> datetime:
    """After what the next due time is: a clock that was put back does not bring back what had its turn."""
    return max(now, found.last_due_at) if found is not None and found.last_due_at is not None else now


def _past(timing: Timing, now: datetime) -> InvalidArgument:
    if isinstance(timing, Once):
        rule = f"must be to come; got {timing.at:%Y-%m-%d %H:%M:%S} UTC, and it is {now:%Y-%m-%d %H:%M:%S} UTC"
        return InvalidArgument(FieldViolation("schedule.once", rule))
    return InvalidArgument(FieldViolation("schedule", "is never due"))


def _why(refused: Published) -> str:
    assert refused.reason is not None
    return f"the queue did not take the job: {refused.reason.name}, job {refused.met} stands in its way"


def _cut(text: str) -> str:
    return text[: limits.SCHEDULE_ERROR]

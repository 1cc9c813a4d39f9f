"""The one place for time-driven work.

Due jobs, schedules, time limits, other replicas' dead sessions, the archive's days. Any replica may do it; several do
not disturb each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from jobwire_server.domain.errors import JobwireError, LockTimeout
from jobwire_server.store import actions, archive, sessions
from jobwire_server.store import upkeep as store
from jobwire_server.store.database import Connection, Database
from jobwire_server.store.sessions import Ended, Sighting
from jobwire_server.store.settling import Stop
from jobwire_server.store.upkeep import Look

log = structlog.get_logger(__name__)

_ARCHIVE_SECONDS = 3_600.0
_LOOK_SHARE = 0.05
"""The most of the time that looks for what no signal told of may take. A transaction that somebody leaves open keeps
dead tickets in their way, millions after a while: then they become rarer, rather than all that the database does."""


@dataclass(slots=True)
class _Sight:
    epoch: int
    renewals: int
    since: float


class SessionWatch:
    """Watches the renewal counters of the sessions that this replica does not serve.

    A session is ended only after this process has itself seen its counter stand still for the session's whole grace, on
    its own monotonic clock, with the database answering throughout: a missed look, or a pause of this process, begins
    all counts anew.
    """

    def __init__(
        self,
        database: Database,
        replica: UUID,
        interval: float,
        on_ended: Callable[[UUID, Ended], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._replica = replica
        self._patience = 3 * interval + 1.0
        self._on_ended = on_ended
        self._clock = clock
        self._seen: dict[UUID, _Sight] = {}
        self._last_look: float | None = None
        self._overdue: list[Sighting] = []
        self._found = asyncio.Event()

    def begin_anew(self) -> None:
        """Forgets what was seen: the database was away."""
        self._seen.clear()
        self._last_look = None

    async def look(self, connection: Connection, known: Collection[UUID]) -> None:
        """One look at all sessions that are not `known` here."""
        now = self._clock()
        if self._last_look is not None and now - self._last_look > self._patience:
            self.begin_anew()
        seen: dict[UUID, _Sight] = {}
        overdue = []
        for sighting in await sessions.sight(self._database, connection, self._replica, known):
            before = self._seen.get(sighting.id)
            if before is None or (before.epoch, before.renewals) != (sighting.epoch, sighting.renewals):
                before = _Sight(sighting.epoch, sighting.renewals, now)
            elif now - before.since >= sighting.grace_ms / 1000:
                overdue.append(sighting)
            seen[sighting.id] = before
        self._seen = seen
        self._last_look = now
        self._overdue = overdue
        if overdue:
            self._found.set()

    async def run(self) -> None:
        """Ends the sessions found overdue, until cancelled: apart from the looks, so that no lock delays a renewal."""
        while True:
            await self._found.wait()
            self._found.clear()
            by_owner: dict[UUID, list[Sighting]] = defaultdict(list)
            for sighting in self._overdue:
                by_owner[sighting.owner].append(sighting)
            for owner, overdue in by_owner.items():
                with _told(replica=str(owner)):
                    await self._check_free(overdue)
                    for sighting in overdue:
                        with _told(session_id=str(sighting.id)):
                            await self._end(sighting)

    async def _check_free(self, overdue: Sequence[Sighting]) -> None:
        """Begins the counts of one replica's sessions anew if somebody holds one of them.

        It renews them all in one statement: the lock may be why none was renewed, and is no sign of its death.
        """
        try:
            await sessions.check_free(self._database, [sighting.id for sighting in overdue])
        except LockTimeout:
            for sighting in overdue:
                self._seen.pop(sighting.id, None)
            raise

    async def _end(self, sighting: Sighting) -> None:
        ended = await sessions.end_session(
            self._database, sighting.id, epoch=sighting.epoch, renewals=sighting.renewals
        )
        if ended is not None:
            log.warning(
                "ended the session of a replica that is gone",
                session_id=str(sighting.id),
                replica=str(ended.owner),
                given_back=ended.given_back,
            )
            self._on_ended(sighting.id, ended)


class Upkeep:
    """Due jobs, schedules, time limits, the archive: a loop each. The first also looks for jobs that no signal told of.

    `on_gates(queue)` is called when the gates of a queue are to be looked at, `on_letters()` when dead letters are to
    be carried over, `on_waiting(queues)` with the queues whose jobs may wait for so long only.

    `hungry()` says where, and `on_found(look)` is called for each place that has some; `on_ready(queue)` when
    jobs became claimable or were given back, `on_stop(stop)` for each delivery to be told to stop, `on_changed(queue)`
    when jobs may have changed. `run_schedules()` is called when some are due, and says whether none is left.
    """

    def __init__(  # noqa: PLR0913  (most of them are whom it tells)
        self,
        database: Database,
        poll_seconds: float,
        cancel_grace_ms: int,
        *,
        hungry: Callable[[], Sequence[Look]],
        on_found: Callable[[Look], None],
        on_ready: Callable[[str], None],
        on_gates: Callable[[str], None],
        on_letters: Callable[[], None],
        on_waiting: Callable[[Sequence[str]], None],
        on_stop: Callable[[Stop], Awaitable[None]],
        on_changed: Callable[[str], None],
        run_schedules: Callable[[], Awaitable[bool]],
    ) -> None:
        self._database = database
        self._poll = poll_seconds
        self._cancel_grace_ms = cancel_grace_ms
        self._hungry = hungry
        self._on_found = on_found
        self._next_look = 0.0
        self._on_ready = on_ready
        self._on_gates = on_gates
        self._on_letters = on_letters
        self._on_waiting = on_waiting
        self._on_stop = on_stop
        self._on_changed = on_changed
        self._run_schedules = run_schedules
        self._blocked: set[UUID] = set()
        self._due = asyncio.Event()
        self._claim_due = asyncio.Event()
        self._schedule_due = asyncio.Event()
        self._next_due = 0.0

    def due_in(self, seconds: float) -> None:
        """A job or a schedule becomes due this soon."""
        if time.monotonic() + seconds < self._next_due:
            self._due.set()

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What is to run until it is cancelled, each by itself: a group would pass a second cancellation on to none."""
        return [
            self._forever("due jobs", self._clock),
            self._forever("schedules", self._schedules),
            self._forever("time limits", self._limits),
            self._forever("archive", self._archive),
        ]

    async def _forever(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except JobwireError as error:
                log.warning("upkeep failed", what=what, error=error.message)
                await asyncio.sleep(self._poll)
            except Exception:
                log.exception("upkeep failed", what=what)
                await asyncio.sleep(self._poll)

    async def _clock(self) -> None:
        """One look for all that time brings: an idle replica makes this statement each second, and no other here."""
        self._due.clear()
        began = time.monotonic()
        looking = began >= self._next_look
        due = await store.next_due(self._database, self._hungry() if looking else ())
        if looking:
            self._next_look = began + max(self._poll, (time.monotonic() - began) / _LOOK_SHARE)
        for look in due.ready:
            self._on_found(look)
        for queue in due.gates:
            self._on_gates(queue)
        if due.letters:
            self._on_letters()
        self._on_waiting(due.waiting)
        if due.claim:
            self._claim_due.set()
        if due.schedule_in_ms == 0:
            self._schedule_due.set()
        pause = self._poll if due.job_in_ms is None else min(self._poll, due.job_in_ms / 1000)
        if due.schedule_in_ms:
            pause = min(pause, due.schedule_in_ms / 1000)
        if pause <= 0:
            for queue, gated in (await store.promote_due(self._database)).items():
                (self._on_gates if gated else self._on_ready)(queue)
        self._next_due = time.monotonic() + pause
        await _wait(self._due, max(pause, 0.001))

    async def _schedules(self) -> None:
        await self._schedule_due.wait()
        self._schedule_due.clear()
        if await self._run_schedules():
            # When the next is due, the clock is to find out; what is left it finds again at its own next look.
            self.due_in(0.0)

    async def _limits(self) -> None:
        await self._claim_due.wait()
        self._claim_due.clear()
        while (checked := await store.check_limits(self._database, self._cancel_grace_ms, self._blocked)) is not None:
            if checked.blocked is not None:
                self._blocked.add(checked.blocked)
            for stop in checked.stops:
                await self._on_stop(stop)
            for queue in checked.settled:
                self._on_ready(queue)
                self._on_changed(queue)
        self._blocked.clear()

    async def _archive(self) -> None:
        today = await archive.make_days_ahead(self._database)
        dropped = await archive.drop_past_days(self._database, today)
        if dropped:
            log.info("archive days dropped", days=[day.isoformat() for day in dropped])
        await actions.forget_old(self._database)
        await asyncio.sleep(_ARCHIVE_SECONDS)


@contextlib.contextmanager
def _told(**whom: str) -> Iterator[None]:
    """Logs why sessions could not be ended; they are found again at the next look, if they still stand still."""
    try:
        yield
    except JobwireError as error:
        log.warning("sessions could not be ended", error=error.message, **whom)
    except Exception:
        log.exception("sessions could not be ended", **whom)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass

"""The one place for time-driven work.

Due jobs, time limits, other replicas' dead sessions, the archive's days. Any replica may do it; several do not disturb
each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from jobwire_server.domain.errors import JobwireError
from jobwire_server.store import archive, sessions
from jobwire_server.store import upkeep as store
from jobwire_server.store.database import Connection, Database
from jobwire_server.store.sessions import Ended, Sighting
from jobwire_server.store.settling import Stop

log = structlog.get_logger(__name__)

_ARCHIVE_SECONDS = 3_600.0
_PROMOTED_AT_ONCE = 1_000


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
            for sighting in self._overdue:
                try:
                    await self._end(sighting)
                except Exception:
                    # It is found again at the next look, if it still stands still.
                    log.exception("a session could not be ended", session_id=str(sighting.id))

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
    """Due jobs, time limits, the archive: a loop each.

    `on_ready(queue)` is called when jobs became claimable or were given back, `on_stop(stop)` for each delivery to be
    told to stop, `on_changed(queue)` when jobs may have changed.
    """

    def __init__(
        self,
        database: Database,
        poll_seconds: float,
        cancel_grace_ms: int,
        *,
        on_ready: Callable[[str], None],
        on_stop: Callable[[Stop], Awaitable[None]],
        on_changed: Callable[[str], None],
    ) -> None:
        self._database = database
        self._poll = poll_seconds
        self._cancel_grace_ms = cancel_grace_ms
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._on_changed = on_changed
        self._blocked: set[UUID] = set()
        self._due = asyncio.Event()
        self._next_due = 0.0

    def due_in(self, seconds: float) -> None:
        """A job becomes due this soon."""
        if time.monotonic() + seconds < self._next_due:
            self._due.set()

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What is to run until it is cancelled, each by itself: a group would pass a second cancellation on to none."""
        return [
            self._forever("due jobs", self._promote),
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

    async def _promote(self) -> None:
        self._due.clear()
        promoted = await store.promote_due(self._database)
        for queue in promoted:
            self._on_ready(queue)
        if sum(promoted.values()) >= _PROMOTED_AT_ONCE:
            return
        in_ms = await store.next_due_ms(self._database)
        pause = min(self._poll, in_ms / 1000) if in_ms is not None else self._poll
        self._next_due = time.monotonic() + pause
        await _wait(self._due, max(pause, 0.001))

    async def _limits(self) -> None:
        checked = await store.check_limits(self._database, self._cancel_grace_ms, self._blocked)
        if checked is None:
            self._blocked.clear()
            await asyncio.sleep(self._poll)
            return
        if checked.blocked is not None:
            self._blocked.add(checked.blocked)
        for stop in checked.stops:
            await self._on_stop(stop)
        for queue in checked.settled:
            self._on_ready(queue)
            self._on_changed(queue)

    async def _archive(self) -> None:
        today = await archive.make_days_ahead(self._database)
        dropped = await archive.drop_past_days(self._database, today)
        if dropped:
            log.info("archive days dropped", days=[day.isoformat() for day in dropped])
        await asyncio.sleep(_ARCHIVE_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass

"""Claims jobs for the sessions of this replica and hands them over.

One lane for each queue that somebody here subscribes to. A lane claims when there may be jobs (`wake`) and a session
has credits; an idle lane costs nothing but its part in one poll for all. Credits are reserved before a claim is sent
and refunded from its result, so a session never has more unfinished deliveries than it asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

import structlog

from jobwire_server.domain.errors import JobwireError
from jobwire_server.domain.jobs import Delivery, NewJob
from jobwire_server.domain.queues import Queue
from jobwire_server.store import claiming, publishing, settling
from jobwire_server.store.claiming import CLAIM_SIZE, Claimed, Span, Want
from jobwire_server.store.database import Database
from jobwire_server.store.publishing import PublishOutcome

from . import background
from .session import Session
from .terms import Stats

log = structlog.get_logger(__name__)

_RANKS_REMEMBERED = 8
_JOBS_PER_CLAIM = 1_000
_BYTES_PER_CLAIM = 8 * 1024 * 1024
_PAYLOAD_AT_FIRST = 16 * 1024
_PAUSE_AFTER_ERROR = 0.5
_START_SHARE = 0.05
"""The most of a lane's time that claims from the very start may take for the clock's sake: after the dead tickets that
an open transaction keeps there, millions after a while, each of them is long."""
_CALM_SECONDS = 0.02
"""How long new jobs wait for claims under way, so that they can be handed over; they would be claimed after those."""


T = TypeVar("T")

Takers = list[tuple[Session, Want]]
"""Sessions, and what each may take."""


class _Floor:
    """Up to where the claim order is known to be empty, for each rank.

    A claim need not walk over the dead entries there again.
    """

    def __init__(self) -> None:
        self._taken: dict[int, int] = {}

    @property
    def at_start(self) -> bool:
        """Whether nothing is known."""
        return not self._taken

    def reset(self) -> None:
        self._taken.clear()

    def raise_to(self, claimed: Iterable[Claimed]) -> None:
        taken = self._taken
        for job in claimed:
            if job.seq > taken.get(job.rank, -1):
                taken[job.rank] = job.seq
        if len(self._taken) > _RANKS_REMEMBERED:
            self.reset()

    def spans(self) -> Sequence[Span]:
        """What may hold tickets, in claim order: before the first known rank, and after the floor of each."""
        ranks = sorted(self._taken)
        starts = [(claiming.LOWEST, -1), *((rank, self._taken[rank]) for rank in ranks)]
        ends = [*ranks, claiming.HIGHEST]
        return [Span(rank, seq, end) for (rank, seq), end in zip(starts, ends, strict=True)]


class _Lane:
    """What is known of one queue."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.sessions: list[Session] = []
        self.changed = asyncio.Event()
        self.hopeful = True
        self.claiming = False
        self.suspects = True
        self.floor = _Floor()
        self.payload = _PAYLOAD_AT_FIRST
        """How large the payloads of the last claim were, on average: a claim is to bring what memory can hold."""
        self.restarts = 0
        self.start_after = 0.0
        """When the clock may have it claim from the start again."""
        self.task: asyncio.Task[None] | None = None
        self.calm = asyncio.Event()
        """Set while it claims nothing and waits for a change."""
        self.patient = True
        """Whether new jobs wait for that: not while a backlog keeps it from coming."""

    @property
    def may_have_room(self) -> bool:
        """Whether a session could take jobs, or could if a claim under way finds too few."""
        return any(session.credits or session.reserved for session in self.sessions)

    def wake(self, *, from_start: bool, suspects: bool) -> None:
        self.hopeful = True
        self.calm.clear()
        if from_start:
            self.floor.reset()
            self.restarts += 1
        self.suspects |= suspects
        self.changed.set()


class Dispatcher:
    """All lanes of this replica."""

    def __init__(self, database: Database, replica: UUID, stats: Stats, known: Callable[[str], Queue | None]) -> None:
        self._database = database
        self._known = known
        self._replica = replica
        self._stats = stats
        self._lanes: dict[str, _Lane] = {}
        self._doubtful: dict[str, dict[UUID, UUID]] = defaultdict(dict)
        self._stopping = False
        self._handing_over = 0
        self._handed_over = asyncio.Event()

    def add(self, session: Session) -> None:
        """Begins to claim for a session."""
        for queue in session.queues:
            lane = self._lanes.setdefault(queue, _Lane(queue))
            lane.sessions.append(session)
            lane.wake(from_start=True, suspects=True)
            if lane.task is None and not self._stopping:
                lane.task = background.start(self._run(lane), f"lane {queue}")

    def remove(self, session: Session) -> None:
        """Claims no more for a session."""
        for queue in session.queues:
            lane = self._lanes.get(queue)
            if lane is not None and session in lane.sessions:
                lane.sessions.remove(session)
                lane.changed.set()

    def wake(self, queue: str, *, from_start: bool, suspects: bool) -> None:
        """There may be jobs in `queue`.

        `from_start`: also at places that were empty before (given back, committed late); `suspects`: also suspects,
        which new jobs never are.
        """
        lane = self._lanes.get(queue)
        if lane is not None:
            lane.wake(from_start=from_start, suspects=suspects)

    def wake_all(self) -> None:
        """Anything may have happened: after the database was away."""
        for lane in self._lanes.values():
            lane.wake(from_start=True, suspects=True)

    def credits_changed(self, session: Session) -> None:
        """A session may take jobs again."""
        for queue in session.queues:
            lane = self._lanes.get(queue)
            if lane is not None and (lane.hopeful or lane.suspects):
                lane.changed.set()

    @property
    def queues(self) -> Sequence[str]:
        """The queues somebody here subscribes to."""
        return list(self._lanes)

    def hungry(self) -> Sequence[str]:
        """The queues in which to look for jobs that no signal told of: those of lanes that could take some."""
        now = time.monotonic()
        lanes = [lane for lane in self._lanes.values() if now >= lane.start_after]
        for lane in lanes:
            # Whatever came in below, however it did: the next claim looks from the start.
            lane.floor.reset()
        if self._stopping:
            return ()
        return [lane.queue for lane in lanes if any(session.credits for session in lane.sessions)]

    async def stop(self) -> None:
        """Claims no more; returns when what was under way has been handed over."""
        self._stopping = True
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for lane in self._lanes.values():
            lane.changed.set()
        if tasks:
            await asyncio.wait(tasks)
        while self._handing_over:
            self._handed_over.clear()
            await self._handed_over.wait()

    async def calm(self, queue: str) -> None:
        """Waits for the claims under way in `queue`, if they may soon have taken all that is there.

        New jobs that are stored before have to be claimed after them, and those that come meanwhile after these: so
        that with steady publishing nothing would be handed over any more.
        """
        lane = self._lanes.get(queue)
        if lane is None or lane.calm.is_set() or not (lane.patient and lane.may_have_room) or self._stopping:
            return
        try:
            async with asyncio.timeout(_CALM_SECONDS):
                await lane.calm.wait()
        except TimeoutError:
            lane.patient = False

    async def publish(self, queue: Queue, jobs: Sequence[NewJob]) -> PublishOutcome:
        """Stores `jobs`, and hands the first of them over at once if sessions wait for them, which spares a claim.

        Whatever may wait already comes first: as long as the lane has hope, or claims, new jobs go behind.
        """
        lane = None if queue.limited or queue.paused else self._lanes.get(queue.name)
        takers = self._waiting_for(lane, jobs) if lane is not None else []
        if lane is None or not takers:
            return await publishing.publish(self._database, queue, jobs)
        wants = [want for _, want in takers]
        spans = lane.floor.spans()
        self._handing_over += 1
        try:
            return await self._reserving(
                lane,
                takers,
                publishing.hand_over(self._database, self._replica, queue, jobs, wants, spans),
                lambda outcome: outcome.claimed,
            )
        finally:
            self._handing_over -= 1
            self._handed_over.set()

    def _waiting_for(self, lane: _Lane, jobs: Sequence[NewJob]) -> Takers:
        """The sessions that these jobs, or some of them, can be handed to."""
        if self._stopping or lane.hopeful or lane.claiming or lane.queue in self._doubtful:
            return []
        if any(job.start_after is not None or job.start_in_ms is not None for job in jobs):
            return []
        idle = [session for session in lane.sessions if session.credits][: len(jobs)]
        if not idle:
            return []
        lane.sessions.append(lane.sessions.pop(0))
        return [
            (session, Want(session.id, session.epoch, uuid4(), min(CLAIM_SIZE, count - before), before))
            for session in idle
            for count in [min(session.credits, len(jobs))]
            for before in range(0, count, CLAIM_SIZE)
        ]

    async def _run(self, lane: _Lane) -> None:
        while not self._stopping:
            lane.changed.clear()
            if not lane.sessions and lane.queue not in self._doubtful:
                del self._lanes[lane.queue]
                return
            try:
                busy = await self._settle_doubts(lane) or await self._claim(lane)
            except JobwireError as error:
                log.warning("claiming failed", queue=lane.queue, error=error.message)
                busy = True
                await asyncio.sleep(_PAUSE_AFTER_ERROR)
            except Exception:
                log.exception("claiming failed", queue=lane.queue)
                busy = True
                await asyncio.sleep(_PAUSE_AFTER_ERROR)
            if not busy and not lane.changed.is_set():
                lane.calm.set()
                lane.patient |= not lane.hopeful
                await lane.changed.wait()
                lane.calm.clear()

    async def _claim(self, lane: _Lane) -> bool:
        """One round; False if there is nothing to do until something changes."""
        queue = self._known(lane.queue)
        return not (queue is not None and queue.paused) and await self._claim_from(
            lane, limited=queue is not None and queue.limited
        )

    async def _claim_from(self, lane: _Lane, *, limited: bool) -> bool:
        if lane.suspects and await self._claim_suspect(lane, limited=limited):
            return True
        if not lane.hopeful:
            return False
        takers: Takers = []
        room = max(1, min(_JOBS_PER_CLAIM, _BYTES_PER_CLAIM // lane.payload))
        for session in lane.sessions:
            count = min(session.credits, CLAIM_SIZE, room)
            if count:
                takers.append((session, Want(session.id, session.epoch, uuid4(), count)))
                room -= count
        if not takers:
            return False
        # In turn: who was first this time is last the next.
        lane.sessions.append(lane.sessions.pop(0))
        lane.hopeful = False
        restarts = lane.restarts
        wants = [want for _, want in takers]
        from_start, began = lane.floor.at_start, time.monotonic()
        lane.claiming = True
        try:
            claimed = await self._reserving(
                lane,
                takers,
                self._claim_limited(lane, wants)
                if limited
                else claiming.claim(self._database, self._replica, lane.queue, wants, lane.floor.spans()),
                _deliveries,
            )
        finally:
            lane.claiming = False
        if from_start:
            lane.start_after = began + (time.monotonic() - began) / _START_SHARE
        if claimed:
            lane.payload = max(1, sum(len(job.delivery.data) for job in claimed) // len(claimed))
        if lane.restarts == restarts:
            # Otherwise something came back below while the claim was under way, which this floor would hide.
            lane.floor.raise_to(claimed)
        if len(claimed) == sum(want.count for want in wants):
            lane.hopeful = True
        return lane.hopeful

    async def _claim_limited(self, lane: _Lane, wants: Sequence[Want]) -> list[Claimed]:
        outcome = await claiming.claim_limited(self._database, self._replica, lane.queue, wants, lane.floor.spans())
        if outcome.more_in_ms is not None:
            # Its rate allows more then; a limit on what runs, when something ends, of which others tell.
            asyncio.get_running_loop().call_later(
                outcome.more_in_ms / 1000, partial(lane.wake, from_start=False, suspects=True)
            )
        return outcome.claimed

    async def _claim_suspect(self, lane: _Lane, *, limited: bool) -> bool:
        """Has one suspect job run alone.

        In an idle session, or in one that is kept free until it is idle. False if none can be claimed now.
        """
        attached = [
            session
            for session in lane.sessions
            if session.stream is not None and session.max_in_flight and not session.isolated and not session.closing
        ]
        if not attached:
            return False
        session = next((s for s in attached if s.idle), None)
        if session is None:
            if not any(s.saved_for_suspect for s in attached):
                row = await claiming.ready_queues(self._database, [lane.queue])
                if not row[lane.queue][1]:
                    lane.suspects = False
                    return False
                min(attached, key=lambda s: len(s.in_flight) + s.reserved).saved_for_suspect = True
            return False
        lane.suspects = False
        session.alone = True
        want = Want(session.id, session.epoch, uuid4(), 1)
        try:
            claimed = await self._reserving(
                lane,
                [(session, want)],
                claiming.claim_suspect(self._database, self._replica, lane.queue, want, limited=limited),
                _deliveries,
            )
        finally:
            session.alone = False
            for other in lane.sessions:
                if other.saved_for_suspect:
                    other.saved_for_suspect = False
                    self.credits_changed(other)
        if claimed:
            lane.suspects = True
        return bool(claimed)

    async def _reserving(
        self,
        lane: _Lane,
        takers: Takers,
        claim: Awaitable[T],
        deliveries: Callable[[T], Iterable[Delivery]],
    ) -> T:
        """Runs a claim and hands over what it took, its `deliveries`; the credits are taken as long as it runs."""
        for session, want in takers:
            session.reserved += want.count
        try:
            claimed = await claim
        except BaseException:
            # Whether it was committed is not known: whatever it took is given back before the lane claims again.
            self._doubtful[lane.queue] |= {want.token: want.session_id for _, want in takers}
            lane.wake(from_start=True, suspects=True)
            raise
        finally:
            for session, want in takers:
                if session.epoch == want.epoch:
                    session.reserved -= want.count
        groups: dict[bytes, list[Delivery]] = defaultdict(list)
        for delivery in deliveries(claimed):
            groups[delivery.handle.token_bytes].append(delivery)
        for session, want in takers:
            group = groups.get(want.token.bytes)
            if not group:
                continue
            if (
                session.epoch != want.epoch
                or session.resuming
                or session.stream is None
                or session not in lane.sessions
            ):
                # The session was resumed, ended, or lost its stream meanwhile. Whoever did it may have given these back
                # already; if not, the lane does.
                self._doubtful[lane.queue][want.token] = want.session_id
                lane.wake(from_start=True, suspects=True)
                continue
            session.deliver(group)
            self._stats["delivered"] += len(group)
        return claimed

    async def _settle_doubts(self, lane: _Lane) -> bool:
        """Gives back what claims took whose result did not arrive, or whose session lost its stream meanwhile."""
        claims = self._doubtful.get(lane.queue)
        if not claims:
            return False
        given_back = await settling.give_back_claims(self._database, lane.queue, claims)
        self._stats["given_back"] += given_back
        del self._doubtful[lane.queue]
        lane.wake(from_start=True, suspects=True)
        return True


def _deliveries(claimed: Sequence[Claimed]) -> Iterable[Delivery]:
    return (job.delivery for job in claimed)

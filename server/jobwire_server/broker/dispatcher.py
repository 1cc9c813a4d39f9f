"""Claims jobs for the sessions of this replica and hands them over.

One lane for each queue that somebody here subscribes to, and one for each part of a queue's priorities that somebody
takes nothing else of. A lane claims when there may be jobs (`wake`) and a session
has credits; an idle lane costs nothing but its part in one poll for all. Credits are reserved before a claim is sent
and refunded from its result, so a session never has more unfinished deliveries than it asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

import structlog

from jobwire_server.domain.errors import JobwireError
from jobwire_server.domain.jobs import Delivery, NewJob
from jobwire_server.domain.queues import Queue
from jobwire_server.domain.shares import EVERY_RANK, Ranks
from jobwire_server.store import claiming, publishing, settling
from jobwire_server.store.claiming import CLAIM_SIZE, Claimed, Span, Want
from jobwire_server.store.database import Database
from jobwire_server.store.publishing import PublishOutcome
from jobwire_server.store.upkeep import Look

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
    """What is known of one queue, or of those of its jobs that are in some ranks."""

    def __init__(self, queue: str, ranks: Ranks) -> None:
        self.queue = queue
        self.ranks = ranks
        self.sessions: list[Session] = []
        self.mixed = False
        """Whether sessions of it have had other lanes as well."""
        self.changed = asyncio.Event()
        self.hopeful = True
        self.well = True
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
        return any(session.credits_for(self.queue) or session.reserved for session in self.sessions)

    def spans(self) -> Sequence[Span]:
        """Where its claims look."""
        spans = self.floor.spans()
        return spans if self.ranks is EVERY_RANK else claiming.within(spans, self.ranks)

    def covers(self, jobs: Sequence[NewJob]) -> bool:
        """Whether all of these are for it."""
        low, high = self.ranks
        return self.ranks is EVERY_RANK or all(low <= -job.priority <= high for job in jobs)

    def wake(self, *, from_start: bool, suspects: bool) -> None:
        self.hopeful = True
        self.calm.clear()
        if from_start:
            self.floor.reset()
            self.restarts += 1
        self.suspects |= suspects
        self.changed.set()


class Dispatcher:
    """All lanes of this replica. `on_given_back(queue)` is called when leases ended that nobody heard of."""

    def __init__(
        self,
        database: Database,
        replica: UUID,
        stats: Stats,
        known: Callable[[str], Queue | None],
        on_given_back: Callable[[str], None],
    ) -> None:
        self._database = database
        self._known = known
        self._on_given_back = on_given_back
        self._replica = replica
        self._stats = stats
        self._lanes: dict[str, _Lane] = {}
        self._narrow: dict[str, dict[Ranks, _Lane]] = defaultdict(dict)
        self._doubtful: dict[str, dict[UUID, UUID]] = defaultdict(dict)
        self._stopping = False
        self._handing_over = 0
        self._handed_over = asyncio.Event()

    def add(self, session: Session) -> None:
        """Begins to claim for a session."""
        session.lanes = lanes = [self._lane(queue, session.ranks(queue)) for queue in session.queues]
        for lane in lanes:
            lane.sessions.append(session)
            lane.mixed |= len(lanes) > 1
            lane.wake(from_start=True, suspects=True)
            if lane.task is None and not self._stopping:
                lane.task = background.start(self._run(lane), f"lane {lane.queue}")

    def _lane(self, queue: str, ranks: Ranks) -> _Lane:
        if ranks == EVERY_RANK:
            return self._lanes.setdefault(queue, _Lane(queue, EVERY_RANK))
        return self._narrow[queue].setdefault(ranks, _Lane(queue, ranks))

    def _end(self, lane: _Lane) -> None:
        if lane.ranks is EVERY_RANK:
            del self._lanes[lane.queue]
            return
        del self._narrow[lane.queue][lane.ranks]
        if not self._narrow[lane.queue]:
            del self._narrow[lane.queue]

    def _of(self, queue: str) -> Iterator[_Lane]:
        """All lanes of one queue, those that take a part of it first."""
        if queue in self._narrow:
            yield from self._narrow[queue].values()
        if queue in self._lanes:
            yield self._lanes[queue]

    def _all(self) -> list[_Lane]:
        return [*self._lanes.values(), *(lane for lanes in self._narrow.values() for lane in lanes.values())]

    def remove(self, session: Session) -> None:
        """Claims no more for a session."""
        session.lanes = ()
        for lane in [lane for queue in session.queues for lane in self._of(queue)]:
            if session in lane.sessions:
                lane.sessions.remove(session)
                lane.changed.set()

    def wake(self, queue: str, *, from_start: bool, suspects: bool) -> None:
        """There may be jobs in `queue`.

        `from_start`: also at places that were empty before (given back, committed late); `suspects`: also suspects,
        which new jobs never are.
        """
        for lane in self._of(queue):
            lane.wake(from_start=from_start, suspects=suspects)

    def stored(self, queue: str, jobs: Sequence[NewJob]) -> None:
        """New jobs wait in `queue`."""
        for lane in self._of(queue):
            low, high = lane.ranks
            if lane.ranks is EVERY_RANK or any(low <= -job.priority <= high for job in jobs):
                lane.wake(from_start=False, suspects=False)

    def found(self, look: Look) -> None:
        """Jobs wait where `hungry` had them looked for."""
        for lane in self._of(look.queue):
            if lane.ranks == look.ranks:
                lane.wake(from_start=True, suspects=True)

    def wake_all(self) -> None:
        """Anything may have happened: after the database was away."""
        for lane in self._all():
            lane.wake(from_start=True, suspects=True)

    def credits_changed(self, session: Session) -> None:
        """A session may take jobs again."""
        for lane in session.lanes:
            if lane.hopeful or lane.suspects:
                lane.changed.set()

    @property
    def queues(self) -> Sequence[str]:
        """The queues somebody here subscribes to."""
        return list({*self._lanes, *self._narrow})

    def hungry(self) -> Sequence[Look]:
        """Where to look for jobs that no signal told of: the lanes that could take some."""
        now = time.monotonic()
        lanes = [lane for lane in self._all() if now >= lane.start_after]
        for lane in lanes:
            # Whatever came in below, however it did: the next claim looks from the start.
            lane.floor.reset()
        if self._stopping:
            return ()
        return [
            Look(lane.queue, lane.ranks)
            for lane in lanes
            if any(session.wants(lane.queue) for session in lane.sessions)
        ]

    async def stop(self) -> None:
        """Claims no more; returns when what was under way has been handed over."""
        self._stopping = True
        tasks = [lane.task for lane in self._all() if lane.task is not None]
        for lane in self._all():
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
        for lane in () if queue.limited or queue.paused else self._of(queue.name):
            if takers := self._waiting_for(lane, jobs):
                break
        else:
            return await publishing.publish(self._database, queue, jobs)
        wants = [want for _, want in takers]
        spans = lane.spans()
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
        if any(job.start_after is not None or job.start_in_ms is not None for job in jobs) or not lane.covers(jobs):
            return []
        idle = [(session, free) for session in lane.sessions if (free := session.credits_for(lane.queue))]
        if not idle:
            return []
        lane.sessions.append(lane.sessions.pop(0))
        return [
            (session, Want(session.id, session.epoch, uuid4(), min(CLAIM_SIZE, count - before), before))
            for session, free in idle[: len(jobs)]
            for count in [min(free, len(jobs))]
            for before in range(0, count, CLAIM_SIZE)
        ]

    async def _run(self, lane: _Lane) -> None:
        while not self._stopping:
            lane.changed.clear()
            if not lane.sessions and lane.queue not in self._doubtful:
                self._end(lane)
                return
            try:
                busy = await self._settle_doubts(lane) or await self._claim(lane)
                lane.well = True
            except JobwireError as error:
                log.warning("claiming failed", queue=lane.queue, error=error.message)
                busy = await self._rest(lane)
            except Exception:
                log.exception("claiming failed", queue=lane.queue)
                busy = await self._rest(lane)
            if not busy and not lane.changed.is_set():
                lane.calm.set()
                lane.patient |= not lane.hopeful
                await lane.changed.wait()
                lane.calm.clear()

    async def _rest(self, lane: _Lane) -> bool:
        """Pauses after a failure; what the lane cannot take meanwhile is for its sessions' other lanes."""
        lane.well = False
        self._pass_on(lane)
        await asyncio.sleep(_PAUSE_AFTER_ERROR)
        return True

    def _pass_on(self, lane: _Lane) -> None:
        """If a lane takes nothing now, its sessions' other lanes wait for its turn no longer.

        Nor those of sessions that it has not claimed for.
        """
        if lane.mixed and not (lane.hopeful and lane.well):
            for session in lane.sessions:
                self.credits_changed(session)

    async def _claim(self, lane: _Lane) -> bool:
        """One round; False if there is nothing to do until something changes."""
        queue = self._known(lane.queue)
        if queue is not None and queue.paused:
            # Of suspects as well, or it would pass its turn on to itself without end; a resume wakes it for both.
            lane.hopeful = lane.suspects = False
            self._pass_on(lane)
            return False
        return await self._claim_from(lane)

    def _limited(self, lane: _Lane) -> bool:
        """Whether its queue has limits; asked for each claim, since whoever learns of others wakes the lane once."""
        queue = self._known(lane.queue)
        return queue is not None and queue.limited

    async def _claim_from(self, lane: _Lane) -> bool:
        if lane.suspects and await self._claim_suspect(lane, limited=self._limited(lane)):
            return True
        if not lane.hopeful:
            return False
        takers = _takers(lane)
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
                if self._limited(lane)
                else claiming.claim(self._database, self._replica, lane.queue, wants, lane.spans()),
                _deliveries,
            )
        finally:
            lane.claiming = False
        if from_start:
            lane.start_after = began + (time.monotonic() - began) / _START_SHARE
        if claimed:
            left = sum(len(job.delivery.checkpoint) for job in claimed if job.delivery.checkpoint)
            lane.payload = max(1, (left + sum(len(job.delivery.data) for job in claimed)) // len(claimed))
        if lane.restarts == restarts:
            # Otherwise something came back below while the claim was under way, which this floor would hide.
            lane.floor.raise_to(claimed)
        if len(claimed) == sum(want.count for want in wants):
            lane.hopeful = True
        self._pass_on(lane)
        return lane.hopeful

    async def _claim_limited(self, lane: _Lane, wants: Sequence[Want]) -> list[Claimed]:
        outcome = await claiming.claim_limited(self._database, self._replica, lane.queue, wants, lane.spans())
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
                _, suspects = await claiming.waiting(self._database, lane.queue, lane.ranks)
                if not suspects:
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
                claiming.claim_suspect(self._database, self._replica, lane.queue, want, lane.ranks, limited=limited),
                _deliveries,
            )
        finally:
            session.alone = False
            self.credits_changed(session)
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
            session.reserve(lane.queue, want.count)
        try:
            claimed = await claim
        except BaseException:
            # Whether it was committed is not known: whatever it took is given back before the lane claims again.
            self._doubtful[lane.queue] |= {want.token: want.session_id for _, want in takers}
            self.wake(lane.queue, from_start=True, suspects=True)
            raise
        finally:
            for session, want in takers:
                if session.epoch == want.epoch:
                    session.refund(lane.queue, want.count)
                    if len(session.queues) > 1:
                        # What it did not take, or the next turn, is another lane's.
                        self.credits_changed(session)
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
                self.wake(lane.queue, from_start=True, suspects=True)
                continue
            session.deliver(group)
            self._stats["delivered"] += len(group)
        return claimed

    async def _settle_doubts(self, lane: _Lane) -> bool:
        """Gives back what claims took whose result did not arrive, or whose session lost its stream meanwhile."""
        claims = dict(self._doubtful.get(lane.queue, {}))
        if not claims:
            return False
        self._stats["given_back"] += await settling.give_back_claims(self._database, lane.queue, claims)
        # Others may have come meanwhile, or another lane of the queue may have done the same.
        left = {token: session for token, session in self._doubtful[lane.queue].items() if token not in claims}
        if left:
            self._doubtful[lane.queue] = left
        else:
            del self._doubtful[lane.queue]
        self.wake(lane.queue, from_start=True, suspects=True)
        self._on_given_back(lane.queue)
        return True


def _takers(lane: _Lane) -> Takers:
    """The sessions that can take jobs of a lane now, and how many."""
    takers: Takers = []
    room = max(1, min(_JOBS_PER_CLAIM, _BYTES_PER_CLAIM // lane.payload))
    for session in lane.sessions:
        count = min(session.credits_for(lane.queue), CLAIM_SIZE, room)
        if count:
            takers.append((session, Want(session.id, session.epoch, uuid4(), count)))
            room -= count
    return takers


def _deliveries(claimed: Sequence[Claimed]) -> Iterable[Delivery]:
    return (job.delivery for job in claimed)

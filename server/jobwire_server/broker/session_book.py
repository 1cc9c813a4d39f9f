"""The sessions that this replica owns.

Opened, resumed, kept alive, lost, closed. docs/protocol.md is the plan of this module.

The row in the database decides who owns a session; this book only mirrors it. Whoever finds that the row has moved on
forgets the session and gives nothing back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import structlog

from jobwire_server.domain.errors import (
    DatabaseUnavailable,
    Draining,
    JobwireError,
    SessionLost,
    SessionTakenOver,
    TooManySessions,
)
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import StopReason
from jobwire_server.store import sessions as store
from jobwire_server.store import settling
from jobwire_server.store.database import Connection, Database
from jobwire_server.store.sessions import Renewal, SessionTerms

from . import background, messages
from .dispatcher import Dispatcher
from .messages import Opened, Subscription
from .session import Session
from .shared_session import session_for
from .stream import Stream
from .terms import BrokerTerms, Stats

log = structlog.get_logger(__name__)

_RECONNECT_DELAY_MS = 1_000
_STREAMS_END_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_GRACE_SLICES = 5


class SessionBook:
    """All sessions of this replica. `on_given_back(queue)` is called when leases ended with one or never arrived."""

    def __init__(
        self,
        database: Database,
        terms: BrokerTerms,
        dispatcher: Dispatcher,
        stats: Stats,
        tell_replica: Callable[..., None],
        on_given_back: Callable[[str], None],
    ) -> None:
        self._database = database
        self._terms = terms
        self._dispatcher = dispatcher
        self._stats = stats
        self._tell_replica = tell_replica
        self._on_given_back = on_given_back
        self._sessions: dict[UUID, Session] = {}
        self._streams = 0
        self._no_streams = asyncio.Event()
        self._no_streams.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._giving_back: set[asyncio.Task[None]] = set()
        self._settled_tokens: dict[str, list[UUID]] = defaultdict(list)
        self._resumes: dict[UUID, list[set[Handle]]] = defaultdict(list)
        """What was settled here during each resume under way, by session: the resume may have found it held still."""
        self._unsaid: set[Handle] = set()
        """Deliveries whose leases were over at the last look, and nobody had said why."""
        self._outages = 0
        self.draining = False

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def streams(self) -> int:
        """Open Subscribe calls."""
        return self._streams

    @property
    def in_flight(self) -> int:
        """Unsettled deliveries of all sessions."""
        return sum(len(session.in_flight) for session in self._sessions.values())

    def get(self, session_id: UUID) -> Session | None:
        """The session, if this replica owns it."""
        return self._sessions.get(session_id)

    @contextlib.asynccontextmanager
    async def subscribe(self, subscription: Subscription) -> AsyncIterator[Stream]:
        """Opens or resumes a session for the time of one Subscribe call."""
        if self.draining:
            raise Draining
        if self._streams >= self._terms.max_sessions:
            raise TooManySessions(self._terms.max_sessions)
        self._streams += 1
        self._no_streams.clear()
        stream = Stream()
        session: Session | None = None
        try:
            session = await (
                self._open(subscription, stream) if subscription.resume is None else self._resume(subscription, stream)
            )
            if self.draining:
                # The drain began while the row was being written, too late to be parked with the others.
                await store.park(self._database, self._terms.replica, self._terms.drain_grace_ms)
                self._send_away(session)
            yield stream
        finally:
            self._streams -= 1
            if session is not None:
                self._detach(session, stream)
            if self._streams == 0:
                self._no_streams.set()

    async def _open(self, subscription: Subscription, stream: Stream) -> Session:
        session = session_for(uuid4(), 1, subscription)
        await store.open_session(self._database, self._terms.replica, session.id, self._row_terms(subscription))
        self._sessions[session.id] = session
        self._attach(session, stream, resumed=False, lost=())
        return session

    async def _resume(self, subscription: Subscription, stream: Stream) -> Session:
        resume = subscription.resume
        assert resume is not None
        known = self._sessions.get(resume.session_id)
        if known is not None:
            known.resuming = True
        settled: set[Handle] = set()
        self._resumes[resume.session_id].append(settled)
        try:
            resumed = await store.resume_session(
                self._database,
                self._terms.replica,
                resume.session_id,
                resume.epoch,
                resume.held,
                self._row_terms(subscription),
            )
        except SessionLost:
            if known is not None:
                self._forget(known, SessionLost(str(known.id)))
            raise
        finally:
            if known is not None:
                known.resuming = False
            self._resumes[resume.session_id].remove(settled)
            if not self._resumes[resume.session_id]:
                del self._resumes[resume.session_id]
        # Another Subscribe of the same session may have won meanwhile, with a higher epoch.
        current = self._sessions.get(resume.session_id)
        if current is not None:
            if current.epoch >= resumed.epoch:
                raise SessionTakenOver(str(resume.session_id))
            self._forget(current, SessionTakenOver(str(current.id)))
        session = session_for(resume.session_id, resumed.epoch, subscription)
        session.hold({handle: suspect for handle, suspect in resumed.held.items() if handle not in settled})
        self._sessions[session.id] = session
        if resumed.previous_owner != self._terms.replica:
            self._tell_replica(resumed.previous_owner, kind="taken_over", session=session.id, epoch=session.epoch)
        self._returned(resumed.given_back)
        self._attach(session, stream, resumed=True, lost=tuple(resumed.lost), quiet=resumed.quiet)
        self._stats["resumed"] += 1
        return session

    def _row_terms(self, subscription: Subscription) -> SessionTerms:
        return SessionTerms(
            subscription.worker,
            subscription.queues,
            subscription.max_in_flight,
            self._terms.owner_grace_ms,
            subscription.shares,
        )

    def _attach(
        self, session: Session, stream: Stream, *, resumed: bool, lost: tuple[Handle, ...], quiet: bool = False
    ) -> None:
        stream.push(
            Opened(
                session.id,
                session.epoch,
                resumed,
                lost,
                session.max_in_flight,
                session.heartbeat_ms,
                session.resume_grace_ms,
            )
        )
        stream.on_room = lambda: self._dispatcher.credits_changed(session)
        session.attach(stream)
        if quiet:
            session.go_quiet()
        self._schedule_beat(session)
        self._dispatcher.add(session)

    def _detach(self, session: Session, stream: Stream) -> None:
        """The Subscribe call is over, for whatever reason."""
        if session.stream is not stream:
            return
        session.detach()
        if self._sessions.get(session.id) is not session:
            return
        unwritten = [delivery.handle for event in stream.unwritten() for delivery in event.deliveries]
        if session.resume_grace_ms == 0 and not self.draining:
            self._spawn(self._lose(session))
            return
        if unwritten:
            task = self._spawn(self._give_back(session, unwritten))
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)
        if self.draining:
            return
        self._await_resume(session)

    def _await_resume(self, session: Session, slices: int = _GRACE_SLICES) -> None:
        """Counts the grace in slices: a pause of this process, in which nobody could resume, counts as one of them."""

        def slice_over() -> None:
            if slices > 1:
                self._await_resume(session, slices - 1)
            else:
                self._spawn(self._lose(session))

        session.stop_timer()
        pause = session.resume_grace_ms / 1000 / _GRACE_SLICES
        session.timer = asyncio.get_running_loop().call_later(pause, slice_over)

    def _schedule_beat(self, session: Session) -> None:
        def beat() -> None:
            if session.beat():
                self._schedule_beat(session)
            else:
                self._spawn(self._lose(session))

        session.timer = asyncio.get_running_loop().call_later(session.heartbeat_ms / 1000, beat)

    async def _give_back(self, session: Session, handles: Sequence[Handle]) -> None:
        """Gives back what was never handed to the connection. Should it fail, the session's resume or end does it."""
        with contextlib.suppress(JobwireError):
            self._returned(await settling.give_back(self._database, [settling.Ending(h, lost=False) for h in handles]))
            self.settled(session, handles)

    async def _lose(self, session: Session) -> None:
        """The session's grace or its heartbeats ran out while this replica and the database live.

        Counted against what the client had received.
        """
        received, outages = session.received(), self._outages

        def counted() -> frozenset[Handle]:
            # A loss that falls into an outage of the database is nobody's fault.
            return received if self._outages == outages else frozenset()

        log.warning("session lost", session_id=str(session.id), worker=session.worker, in_flight=len(session.in_flight))
        self._stats["sessions_lost"] += 1
        while self._sessions.get(session.id) is session:
            try:
                ended = await store.end_session(self._database, session.id, epoch=session.epoch, received=counted)
            except DatabaseUnavailable:
                received = frozenset()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except JobwireError as error:
                log.warning("a lost session is ended later", session_id=str(session.id), error=error.message)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except Exception:
                log.exception("a lost session could not be ended, trying again", session_id=str(session.id))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if ended is not None:
                self._returned(ended.given_back)
            self._forget(session, SessionLost(str(session.id)))

    async def close(self, session_id: UUID) -> bool:
        """The client leaves: ends its session wherever it is served; False if it is over already."""
        session = self._sessions.get(session_id)
        if session is not None:
            session.closing = True
        try:
            ended = await store.end_session(self._database, session_id)
        except BaseException:
            if session is not None:
                session.closing = False
                self._dispatcher.credits_changed(session)
            raise
        if (session := self._sessions.get(session_id)) is not None:
            self._forget(session, None)
        if ended is None:
            return False
        self._returned(ended.given_back)
        if ended.owner != self._terms.replica:
            self._tell_replica(ended.owner, kind="closed", session=session_id)
        return True

    def _forget(self, session: Session, error: JobwireError | None) -> None:
        """The session is no longer this replica's: its stream ends, nothing is given back."""
        session.stop_timer()
        self._dispatcher.remove(session)
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
        if session.stream is not None:
            session.stream.end(error)

    def _returned(self, given_back: Mapping[str, int]) -> None:
        for queue, jobs in given_back.items():
            self._stats["given_back"] += jobs
            self._dispatcher.wake(queue, from_start=True, suspects=True)
            self._on_given_back(queue)

    # What Acks and signals bring.

    def settled_meanwhile(self, session_id: UUID, handles: Sequence[Handle]) -> None:
        """An Ack was applied here, whoever owns the session: a resume under way is not to count these deliveries."""
        for settled in self._resumes.get(session_id, ()):
            settled.update(handles)

    def settled(self, session: Session, handles: Iterable[Handle]) -> None:
        """The client settled these deliveries.

        Credits return, and claims whose deliveries are all settled are cleared away later.
        """
        for handle in session.settle(handles):
            self._settled_tokens[handle.queue].append(handle.token)
        self._dispatcher.credits_changed(session)

    def set_credits(self, session: Session, max_in_flight: int) -> None:
        """The client asks for other credits."""
        session.set_credits(max_in_flight)
        self._dispatcher.credits_changed(session)

    def stop_delivery(self, session_id: UUID, handle: Handle, reason: StopReason, grace_ms: int) -> bool:
        """Tells the worker to stop, if its session is served here."""
        session = self._sessions.get(session_id)
        if session is None:
            return False
        session.stop(handle, reason, grace_ms)
        return True

    def taken_over(self, session_id: UUID, epoch: int) -> None:
        """Another replica says that it serves the session now."""
        session = self._sessions.get(session_id)
        if session is not None and session.epoch < epoch:
            self._forget(session, SessionTakenOver(str(session_id)))

    def quiet(self, session_id: UUID) -> None:
        """The session's client is asked to leave."""
        session = self._sessions.get(session_id)
        if session is not None:
            session.go_quiet()

    def closed(self, session_id: UUID) -> None:
        """Another replica says that the client has closed the session."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._forget(session, None)

    def lost(self, session_id: UUID) -> None:
        """Another replica says that it took this one for dead, and has ended the session."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._forget(session, SessionLost(str(session_id)))

    # What time brings.

    async def renew(self, connection: Connection) -> None:
        """Raises the counters of all sessions, and forgets those that are not this replica's any more.

        Without sessions it writes all the same, to no row: whether the database takes writes is what readiness says.
        """
        mine = {session.id: _renewal(session) for session in self._sessions.values()}
        kept = await store.renew(self._database, connection, self._terms.replica, mine)
        for session_id, quiet in kept.items():
            if quiet:
                self.quiet(session_id)
        for session_id in mine.keys() - kept.keys():
            session = self._sessions.get(session_id)
            if session is None or session.epoch != mine[session_id].epoch or session.resuming:
                continue
            owner = await store.find_owner(self._database, session_id)
            error = SessionLost(str(session_id)) if owner is None else SessionTakenOver(str(session_id))
            log.info("session is no longer served here", session_id=str(session_id), reason=error.reason)
            self._forget(session, error)

    async def reconcile(self) -> None:
        """Returns the credits of deliveries that were settled without this replica hearing of it.

        The floor under lost signals, and under Acks that the old owner took while the session was on its way here.
        Where the job has forgotten who ended a lease, it was the client if nothing tells it to stop until the next
        look. Should it have been an operator, whose signal was lost, then it is told now.
        """
        before = time.monotonic() - 2 * self._terms.renew_interval_ms / 1000
        old = {
            session: [handle for handle, mark in session.in_flight.items() if mark.since < before]
            for session in self._sessions.values()
        }
        handles = [handle for mine in old.values() for handle in mine]
        if not handles:
            return
        over = await settling.over(self._database, handles)
        unsaid, self._unsaid = self._unsaid, set()
        for session, mine in old.items():
            done = []
            for handle in mine:
                mark = session.in_flight.get(handle)
                if mark is None or handle not in over:
                    continue
                if over[handle]:
                    done.append(handle)
                elif mark.told is None:
                    if handle in unsaid:
                        session.stop(handle, StopReason.LEASE_LOST, grace_ms=0)
                        done.append(handle)
                    else:
                        self._unsaid.add(handle)
            if done:
                self.settled(session, done)

    def database_was_away(self) -> None:
        """Nobody could resume meanwhile: the graces of sessions without a stream begin anew."""
        self._outages += 1
        for session in self._sessions.values():
            if session.stream is None and session.timer is not None:
                self._await_resume(session)

    def ids(self) -> Collection[UUID]:
        """The sessions that this replica owns."""
        return self._sessions.keys()

    async def clear_claims(self) -> None:
        """Removes the rows of claims whose deliveries are all settled."""
        tokens, self._settled_tokens = self._settled_tokens, defaultdict(list)
        if tokens:
            try:
                await settling.forget_claims(self._database, tokens)
            except JobwireError:
                for queue, mine in tokens.items():
                    self._settled_tokens[queue].extend(mine)

    # The end.

    async def drain(self, patience: float | None = None) -> None:
        """Parks all sessions, tells every client, and returns when all streams have ended (or after 5 s).

        `patience`: how long to wait for the database and for streams, if the database is away.
        """
        self.draining = True
        for session in self._sessions.values():
            session.stop_timer()
        with contextlib.suppress(JobwireError, TimeoutError):
            # Without the database the rows keep the shorter grace; it begins to count when the database is back.
            async with asyncio.timeout(patience):
                await store.park(self._database, self._terms.replica, self._terms.drain_grace_ms)
        for session in list(self._sessions.values()):
            self._send_away(session)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience or _STREAMS_END_SECONDS):
                await self._no_streams.wait()
                while self._giving_back:
                    await asyncio.wait(self._giving_back)

    def _send_away(self, session: Session) -> None:
        session.stop_timer()
        if session.stream is not None:
            session.stream.push(messages.Draining(self._terms.drain_grace_ms, _RECONNECT_DELAY_MS))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = background.start(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a session's work failed", exc_info=error)

    async def aclose(self) -> None:
        """Ends what still runs."""
        for session in list(self._sessions.values()):
            session.stop_timer()
        await background.end(self._tasks)


def _renewal(session: Session) -> Renewal:
    away = None if session.detached_at is None else round((time.monotonic() - session.detached_at) * 1_000)
    return Renewal(session.epoch, session.max_in_flight, away)

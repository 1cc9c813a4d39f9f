"""The broker: what the API calls. It owns the other parts of this package and joins them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Self
from uuid import UUID

import structlog

from jobwire_server.domain.errors import JobNotFound, JobwireError
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import CancelStatus, Job, NewJob, Published, StopReason
from jobwire_server.domain.operations import Change, Changed, ChangeStatus, Order
from jobwire_server.domain.queues import NOTHING_SAID, Queue, QueuePatch
from jobwire_server.store import archive, reading, sessions
from jobwire_server.store import migrate as migrations
from jobwire_server.store import upkeep as upkeep_store
from jobwire_server.store.database import Connection, Database
from jobwire_server.store.sessions import Ended
from jobwire_server.store.settling import Stop
from jobwire_server.store.upkeep import Look

from . import background
from .acker import Acker
from .admission import Admission
from .dead_letters import DeadLetters
from .dispatcher import Dispatcher
from .gatekeeper import Gatekeeper
from .messages import Ack, AckAnswer, Subscription
from .operations import Hooks, Operations
from .publisher import Publisher
from .queue_book import QueueBook
from .queue_removal import QueueRemoval
from .scheduler import Scheduler
from .session_book import SessionBook
from .session_desk import SessionDesk
from .signals import Signals
from .stream import Stream
from .sweeper import Sweeper
from .terms import BrokerStats, BrokerTerms, Stats
from .upkeep import SessionWatch, Upkeep
from .waits import Waits

log = structlog.get_logger(__name__)

_START_PAUSE_MAX = 5.0
_LAPSE_SECONDS = 1.0
_PATIENCE_AWAY = 1.0
"""Seconds for each step of a drain that needs the database, while that is away."""


class SchemaMismatch(Exception):
    """The database's schema is not one that this version can serve, and it is not to be changed from here."""


class Broker:
    """One replica's broker.

    Entering it waits until the database answers and the schema is there; leaving it ends all that it began.
    """

    def __init__(self, database: Database, terms: BrokerTerms) -> None:
        self._database = database
        self._terms = terms
        self._stats = Stats()
        self._ready = False
        self._ready_changed = asyncio.Event()
        self._away = False
        self._lapse: asyncio.TimerHandle | None = None
        self._draining = False
        interval = terms.renew_interval_ms / 1000
        self._signals = Signals(
            database,
            terms,
            beat=self._beat,
            on_queue=self._heard_of_queue,
            on_replica=self._heard_of_replica,
            on_connected=self._connected,
            on_lost=self._lost,
        )
        self.queues = QueueBook(database, create=terms.create_queues)
        self._gatekeeper = Gatekeeper(database, self._tickets)
        self._dispatcher = Dispatcher(database, terms.replica, self._stats, self.queues.known, self._left)
        self._book = SessionBook(database, terms, self._dispatcher, self._stats, self._signals.tell_replica, self._left)
        self.sessions = SessionDesk(database, self._book, self._signals.tell_replica)
        self.admission = Admission(terms.max_publishing_bytes, self._stats)
        self._publisher = Publisher(
            database,
            self._dispatcher,
            terms.publishing_connections,
            self._stats,
            self._stored,
            self.queues.refresh,
        )
        self.dead_letters = DeadLetters(
            database,
            self.queues,
            on_ready=self._tickets,
            on_gates=self._gatekeeper.poke,
            on_changed=self._queue_changed,
            on_due=lambda: self._upkeep.due_in(0.0),
        )
        self._acker = Acker(
            database,
            terms.replica,
            self._book,
            self._stats,
            on_changed=lambda queue, handles: self._jobs_changed(queue, (handle.job_id for handle in handles)),
            on_back=self._back,
            on_letters=self.dead_letters.poke,
            tell_replica=self._signals.tell_replica,
        )
        self._waits = Waits(database, self._signals.listen)
        self._watch = SessionWatch(database, terms.replica, interval, self._ended_for_other)
        self._sweeper = Sweeper(
            database,
            terms.poll_interval_ms / 1000,
            on_cancelled=self._jobs_changed,
            on_gates=self._gatekeeper.poke,
        )
        self.schedules = Scheduler(
            database, self.queues, self._publisher, self._stats, on_changed=lambda: self._upkeep.due_in(0.0)
        )
        self._upkeep = Upkeep(
            database,
            terms.poll_interval_ms / 1000,
            terms.cancel_grace_ms,
            hungry=self._dispatcher.hungry,
            on_found=self._found,
            on_ready=self._tickets,
            on_gates=self._gatekeeper.poke,
            on_letters=self.dead_letters.poke,
            on_waiting=self._sweeper.waiting,
            on_stop=self._stop,
            on_changed=self._queue_changed,
            run_schedules=self.schedules.run_due,
        )
        self.operations = Operations(
            database, self.queues, terms.cancel_grace_ms, Hooks(self._came_back, self._jobs_changed, self._stop)
        )
        self.queue_removal = QueueRemoval(database, self.queues)
        self._tasks: list[asyncio.Task[None]] = []
        self._looks: set[asyncio.Task[None]] = set()

    # Life.

    async def __aenter__(self) -> Self:
        await self._prepare()
        self._tasks = [
            background.start(self._signals.run(), "signals"),
            *(background.start(loop, "upkeep") for loop in self._upkeep.loops()),
            *(background.start(loop, "sweeper") for loop in self._sweeper.loops()),
            background.start(self.dead_letters.run(), "dead letters"),
            background.start(self._poll(), "poll"),
            background.start(self._watch.run(), "watch"),
        ]
        try:
            # The first renewal proves that the control connection works as well.
            while not self._ready:
                await self._ready_changed.wait()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._draining = True
        self._set_ready(False)
        if self._lapse is not None:
            self._lapse.cancel()
        await self._dispatcher.stop()
        await self._book.aclose()
        await background.end([*self._tasks, *self._looks])
        await self._gatekeeper.stop()

    async def _prepare(self) -> None:
        """Waits for the database, with its schema and the archive's next days in place."""
        pause = 0.2
        while True:
            try:
                state = await migrations.check(self._database)
                if state.unknown:
                    raise SchemaMismatch(
                        f"schema {self._database.schema!r} was migrated by a newer version;"
                        " this one cannot serve beside it, run that one"
                    )
                if state.pending and not self._terms.migrate:
                    raise SchemaMismatch(
                        f"schema {self._database.schema!r} lacks migrations ({', '.join(state.pending)});"
                        " run `jobwire migrate`"
                    )
                if state.pending:
                    for name in await migrations.migrate(self._database):
                        log.info("migrated", schema=self._database.schema, migration=name)
                await archive.make_days_ahead(self._database)
            except JobwireError as error:
                cause = str(error.__cause__ or error).strip()
                log.warning("waiting for the database", cause=cause, retry_in_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _START_PAUSE_MAX)
                continue
            return

    @property
    def ready(self) -> bool:
        """Whether calls can be served: the database answers, and no drain has begun."""
        return self._ready

    @property
    def database_away(self) -> bool:
        """Whether the database was lost and has not answered since."""
        return self._away

    async def ready_changes(self) -> AsyncIterator[bool]:
        """Whether it is ready: now, and at each change."""
        while True:
            seen = self._ready
            yield seen
            while self._ready == seen:
                changed = self._ready_changed
                await changed.wait()

    def _set_ready(self, ready: bool) -> None:
        ready = ready and not self._draining
        if ready != self._ready:
            self._ready = ready
            self._ready_changed.set()
            self._ready_changed = asyncio.Event()

    async def drain(self) -> None:
        """Sends every client elsewhere.

        Publishing, looking and acknowledging go on. Returns when all streams have ended. A database that is away is
        hardly waited for.
        """
        if self._draining:
            return
        self._draining = True
        self._set_ready(False)
        self._book.draining = True
        self._signals.paused = True
        self._waits.end()
        patience = _PATIENCE_AWAY if self._away else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._dispatcher.stop()
        await self._book.drain(patience)

    def stats(self) -> BrokerStats:
        """A look at what it holds and has done."""
        return BrokerStats(
            len(self._book),
            self._book.streams,
            self._book.in_flight,
            len(self._waits),
            self.admission.held,
            self._signals.polling,
            dict(self._stats),
        )

    # Calls.

    async def publish(self, queue: Queue, jobs: Sequence[NewJob]) -> list[Published]:
        """Stores jobs, all or none."""
        for place, job in enumerate(jobs):
            if job.options is not NOTHING_SAID and job.options.dead_letter:
                at = f"jobs[{place}].options.dead_letter"
                await self.queues.check_dead_letter(queue.name, job.options.dead_letter, at)
        return await self._publisher.publish(queue, jobs)

    @contextlib.asynccontextmanager
    async def subscribe(self, subscription: Subscription) -> AsyncIterator[Stream]:
        """Opens or resumes a session for the time of one Subscribe call.

        Queues that do not exist are created, unless that is switched off.
        """
        for queue in subscription.queues:
            await self.queues.for_publish(queue)
            self._signals.listen(queue)
        async with self._book.subscribe(subscription) as stream:
            yield stream

    async def ack(self, ack: Ack) -> AckAnswer:
        """Applies an Ack."""
        return await self._acker.ack(ack)

    async def get_job(
        self,
        queue: str | None,
        job_id: UUID,
        wait_ms: int = 0,
        known_revision: str | None = None,
        until_finished: bool = False,
    ) -> Job:
        """One job.

        With `wait_ms`, as soon as it differs from `known_revision` (or from what it is now), or is finished.
        """
        job = await self._look(queue, job_id)
        if wait_ms <= 0:
            return job
        known = known_revision or job.revision
        deadline = time.monotonic() + wait_ms / 1000
        async with self._waits.waiting_for(job.queue, job_id) as changed:
            while True:
                changed.clear()
                job = await self._look(job.queue, job_id)
                if job.state.finished or (not until_finished and job.revision != known):
                    return job
                left = deadline - time.monotonic()
                if left <= 0 or self._waits.ended:
                    return job
                try:
                    async with asyncio.timeout(left):
                        await changed.wait()
                except TimeoutError:
                    pass

    async def _look(self, queue: str | None, job_id: UUID) -> Job:
        queues = [queue] if queue else await self.queues.names()
        job = await reading.get_job(self._database, queues, job_id)
        if job is None:
            raise JobNotFound(queue or "", str(job_id))
        return job

    async def cancel(self, queue: str, ids: Sequence[UUID], by: str = "") -> dict[UUID, CancelStatus]:
        """Cancels waiting jobs, and has the workers of running ones told."""
        order = Order(Change.CANCEL, queue, by, {"ids": [str(job_id) for job_id in ids]})
        return {result.id: _cancelled(result) for result in await self.operations.change(queue, ids, order)}

    # What the parts tell each other.

    def _stored(self, stored_in: Queue, jobs: Sequence[NewJob]) -> None:
        queue = stored_in.name
        if stored_in.gated:
            self._gatekeeper.poke(queue)
        elif any(job.start_in_ms is None and job.start_after is None for job in jobs):
            self._dispatcher.stored(queue, jobs)
            self._signals.tell_queue(queue, "ready")
        pauses = [job.start_in_ms / 1000 for job in jobs if job.start_in_ms is not None]
        if pauses:
            self._upkeep.due_in(min(pauses))
        if any(job.start_after is not None or job.labels.debounce_ms is not None for job in jobs):
            # A point in time is the database's to compare; it may be past already.
            self._upkeep.due_in(0.0)
            self._dispatcher.stored(queue, jobs)

    def _tickets(self, queue: str) -> None:
        self._dispatcher.wake(queue, from_start=True, suspects=True)
        self._signals.tell_queue(queue, "back")

    def _came_back(self, queue: str) -> None:
        self._tickets(queue)
        self._left(queue)

    def _back(self, queue: str, pause: timedelta) -> None:
        if pause <= timedelta(0):
            self._tickets(queue)
            self._left(queue)
        else:
            self._upkeep.due_in(pause.total_seconds())

    def _left(self, queue: str) -> None:
        """Leases of this queue ended: others may have their turn."""
        known = self.queues.known(queue)
        if known is None:
            # An Ack may come to a replica where nobody named its queue yet.
            self._look_again(partial(self._knowing, queue, partial(self._left, queue)))
            return
        if known.gated:
            self._gatekeeper.poke(queue)
        if known.limited:
            self._tickets(queue)

    async def change_queue(self, name: str, patch: QueuePatch, by: str = "") -> Queue:
        """Changes what `patch` says of a queue, here and on the other replicas."""
        queue = await self.queues.update(name, patch, by)
        self._rules_changed(name)
        return queue

    async def pause_queue(self, name: str, by: str = "", *, paused: bool) -> Queue:
        """Has nothing of a queue start any more, or again; what runs goes on."""
        queue = await self.queues.pause(name, by, paused=paused)
        self._rules_changed(name)
        return queue

    def _rules_changed(self, queue: str) -> None:
        self._signals.tell_queue(queue, "rules")
        self._tickets(queue)
        self._left(queue)

    def _jobs_changed(self, queue: str, job_ids: Iterable[UUID]) -> None:
        self._left(queue)
        self._waits.changed(queue, job_ids)
        self._signals.tell_queue(queue, "changed")

    def _queue_changed(self, queue: str) -> None:
        self._left(queue)
        self._look_again(partial(self._waits.poll, queue))
        self._signals.tell_queue(queue, "changed")

    def _ended_for_other(self, session_id: UUID, ended: Ended) -> None:
        self._stats["sessions_ended_for_others"] += 1
        self._signals.tell_replica(ended.owner, kind="lost", session=session_id)
        for queue, jobs in ended.given_back.items():
            self._stats["given_back"] += jobs
            self._tickets(queue)
            self._left(queue)

    async def _stop(self, stop: Stop) -> None:
        if self._book.stop_delivery(stop.session_id, stop.handle, stop.reason, stop.grace_ms):
            return
        owner = stop.owner or await sessions.find_owner(self._database, stop.session_id)
        if owner is not None and stop.reason is StopReason.LEASE_LOST:
            # Nothing in the database says it any more.
            self._signals.tell_replica(owner, kind="void", session=stop.session_id, handle=str(stop.handle))
        elif owner is not None:
            self._signals.tell_replica(owner, kind="stops")

    def _heard_of_queue(self, queue: str, what: str) -> None:
        if what == "rules":
            self.queues.forget(queue)
            wake = partial(self._dispatcher.wake, queue, from_start=True, suspects=True)
            self._look_again(partial(self._knowing, queue, wake))
            return
        known = self.queues.known(queue)
        if what == "ready" and (known is None or known.gated):
            # Perhaps by publish(): nobody else knows of it.
            self._gatekeeper.poke(queue)
        if what in ("ready", "back"):
            self._dispatcher.wake(queue, from_start=True, suspects=what == "back")
        elif what == "changed":
            self._look_again(partial(self._waits.poll, queue))

    def _heard_of_replica(self, message: dict[str, Any]) -> None:
        kind = message.get("kind")
        if kind == "acked":
            handles = [handle for text in message["settled"] if (handle := Handle.parse(text)) is not None]
            self._acker.acked_elsewhere(
                UUID(message["session"]), message["last_sequence"], message["max_in_flight"], handles
            )
        elif kind == "taken_over":
            self._book.taken_over(UUID(message["session"]), message["epoch"])
        elif kind == "closed":
            self._book.closed(UUID(message["session"]))
        elif kind == "quiet":
            self._book.quiet(UUID(message["session"]))
        elif kind == "lost":
            self._book.lost(UUID(message["session"]))
        elif kind == "stops":
            self._look_again(self._tell_stops)
        elif kind == "void" and (void := Handle.parse(message["handle"])) is not None:
            self._book.stop_delivery(UUID(message["session"]), void, StopReason.LEASE_LOST, 0)

    def _found(self, look: Look) -> None:
        """Jobs wait that nobody told of; perhaps nobody told of other rules either."""
        self._look_again(partial(self._knowing, look.queue, partial(self._dispatcher.found, look)))

    async def _knowing(self, queue: str, what: Callable[[], None]) -> None:
        """Does something when the queue's rules are known as they are now: a claim by other rules takes nothing."""
        await self.queues.find(queue)
        what()

    def _look_again(self, look: Callable[[], Awaitable[None]]) -> None:
        """Begins a look at the database that a signal asked for; should it fail, the floor under signals does it."""

        async def run() -> None:
            with contextlib.suppress(JobwireError):
                await look()

        task = background.start(run())
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _tell_stops(self) -> None:
        async with self._database.connection() as connection:
            await self._stops(connection)

    async def _stops(self, connection: Connection) -> None:
        for stop in await upkeep_store.stopping(self._database, connection, self._terms.replica):
            self._book.stop_delivery(stop.session_id, stop.handle, stop.reason, stop.grace_ms)

    # What time brings.

    async def _beat(self, connection: Connection) -> None:
        """On the control connection: renewals, the watch over other replicas, and the floor under lost signals."""
        await self._book.renew(connection)
        await self._watch.look(connection, self._book.ids())
        await self._stops(connection)
        self._away = False
        self._set_ready(True)
        self._lapse_later()

    def _lapse_later(self) -> None:
        """A database that hangs breaks no connection: when two renewals are due and none came, it counts as away."""
        if self._lapse is not None:
            self._lapse.cancel()
        self._lapse = asyncio.get_running_loop().call_later(
            2 * self._terms.renew_interval_ms / 1000 + _LAPSE_SECONDS, self._lapsed
        )

    def _lapsed(self) -> None:
        if not self._draining:
            log.warning("the database does not answer", since_seconds=round(2 * self._terms.renew_interval_ms / 1000))
            self._lost()
            self._lapse_later()

    def _connected(self) -> None:
        self._book.database_was_away()
        self._dispatcher.wake_all()

    def _lost(self) -> None:
        self._watch.begin_anew()
        self._book.database_was_away()
        self._away = True
        self._set_ready(False)

    async def _poll(self) -> None:
        """The floor under lost wake-ups of waits, and of credits that return."""
        while True:
            await asyncio.sleep(self._terms.poll_interval_ms / 1000)
            try:
                await self._waits.poll()
                await self._book.clear_claims()
                await self._book.reconcile()
                self._signals.listen_only(self._waits.queues.union(self._dispatcher.queues))
            except JobwireError as error:
                log.warning("polling failed", error=error.message)
            except Exception:
                log.exception("polling failed")


def _cancelled(result: Changed) -> CancelStatus:
    match result.status:
        case ChangeStatus.CHANGED:
            return CancelStatus.CANCELLED
        case ChangeStatus.REQUESTED:
            return CancelStatus.REQUESTED
        case _ if result.state is not None and result.state.finished:
            return CancelStatus.ALREADY_FINISHED
        case _:
            # Live still after three rounds: it moves too fast to be met, the caller may repeat the call.
            return CancelStatus.NOT_FOUND

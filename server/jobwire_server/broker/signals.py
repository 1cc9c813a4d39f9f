"""The control connection.

What replicas tell each other, and the renewal of this replica's sessions. It never does other work.

Signals are hints over NOTIFY, coalesced: the first of a kind goes out at once, what follows within a tenth of a second
goes out together at its end. Each of them has a floor that does without it (the renewal, the idle poll), so a lost
signal costs time and nothing else. Behind a pooler, which lets nobody listen, what is meant for one replica waits in
its letterbox, and what is meant for all is left to the floors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

import structlog

from jobwire_server.domain.errors import DatabaseUnavailable, JobwireError
from jobwire_server.store.control import ControlConnection
from jobwire_server.store.database import Connection, Database

from .terms import BrokerTerms

log = structlog.get_logger(__name__)

_COALESCE_SECONDS = 0.1
_TOGETHER_SECONDS = 0.01
"""What comes so soon after a statement of signals goes in the next one, whatever it is about: with a thousand queues
each publish would be a statement more."""
_RECONNECT_SECONDS = 1.0


class Signals:
    """Sends and receives signals, and runs `beat` on the control connection every `renew_interval`.

    `on_queue(queue, what)` and `on_replica(message)` are called for what arrives; `on_connected()` after each
    (re)connect, since signals may have been missed; `beat(connection)` raises when the database does not answer.
    """

    def __init__(
        self,
        database: Database,
        terms: BrokerTerms,
        *,
        beat: Callable[[Connection], Awaitable[None]],
        on_queue: Callable[[str, str], None],
        on_replica: Callable[[dict[str, Any]], None],
        on_connected: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._database = database
        self._replica = terms.replica
        self._interval = terms.renew_interval_ms / 1000
        self._poll = terms.poll_interval_ms / 1000
        self._beat = beat
        self._on_queue = on_queue
        self._on_replica = on_replica
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._wanted: set[str] = set()
        self._wanted_anew = True
        self._pending: dict[tuple[str, str], None] = {}
        self._quiet_until: dict[tuple[str, str], float] = {}
        self._next_flush = 0.0
        self._work = asyncio.Event()
        self._told_of_pooler = False
        self.polling = False
        """Whether a pooler keeps it from listening."""
        self.paused = False
        """While draining: no renewals, which would take the drain grace back."""

    def listen(self, queue: str) -> None:
        """Hear of `queue` from now on."""
        if queue not in self._wanted:
            self._wanted.add(queue)
            self._wanted_anew = True
            self._work.set()

    def listen_only(self, queues: set[str]) -> None:
        """Hear of exactly these queues."""
        if self._wanted != queues:
            self._wanted = queues
            self._wanted_anew = True
            self._work.set()

    def tell_queue(self, queue: str, what: str) -> None:
        """To every replica that listens to `queue`: `ready` (new ones), `back` (given back, or due) or `changed`."""
        self._send(self._database.queue_channel(queue), what)

    def tell_replica(self, replica: UUID, **message: Any) -> None:
        """To one other replica."""
        if replica != self._replica:
            self._send(self._database.replica_channel(replica), json.dumps(message, default=str))

    def _send(self, channel: str, payload: str) -> None:
        if (channel, payload) not in self._pending:
            self._pending[channel, payload] = None
            self._work.set()

    async def run(self) -> None:
        """Keeps the connection until cancelled."""
        own = self._database.replica_channel(self._replica)
        while True:
            try:
                async with ControlConnection(self._database, own, self._poll) as control:
                    self._look_for_pooler(control)
                    await control.listen({own})
                    self._on_connected()
                    await self._serve(control)
            except DatabaseUnavailable:
                log.warning("control connection lost", retry_in_seconds=_RECONNECT_SECONDS)
            except JobwireError as error:
                log.warning("control connection failed", error=error.message)
            except Exception:
                log.exception("control connection failed")
            self._on_lost()
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _look_for_pooler(self, control: ControlConnection) -> None:
        self.polling = not control.listens
        if self.polling and not self._told_of_pooler:
            self._told_of_pooler = True
            log.warning(
                "a pooler stands before the database",
                meaning="it is taken to pool by transaction, so LISTEN cannot be used and this replica polls instead",
                cost="what another replica does (a publish, a change, an ack, a cancel) is noticed at the next look,"
                " and every transaction sets its own settings",
                look_every_seconds=self._poll,
            )

    async def _serve(self, control: ControlConnection) -> None:
        loop = asyncio.get_running_loop()
        own = self._database.replica_channel(self._replica)
        next_beat = loop.time()
        channels: dict[str, str] = {}
        self._wanted_anew = True
        while True:
            if self._wanted_anew:
                # Not each time: a thousand queues take a millisecond.
                self._wanted_anew = False
                channels = {self._database.queue_channel(queue): queue for queue in self._wanted}
                await control.listen({own, *channels})
            if loop.time() >= next_beat:
                if self.polling:
                    # A session that was closed elsewhere is better heard of than found missing.
                    self._heard(await control.letters(), own, channels)
                if not self.paused:
                    await self._beat(control.connection)
                next_beat = loop.time() + self._interval
            soonest = await self._flush(control)
            # Last before waiting: what arrived during a statement of ours does not wake us again.
            self._heard(await control.received(), own, channels)
            await control.wait(self._work, min(next_beat, soonest) - loop.time())
            self._work.clear()

    def _heard(self, messages: Iterable[tuple[str, str]], own: str, channels: Mapping[str, str]) -> None:
        for channel, payload in messages:
            if channel == own:
                self._on_replica(json.loads(payload))
            elif channel in channels:
                self._on_queue(channels[channel], payload)

    async def _flush(self, control: ControlConnection) -> float:
        """Sends what is due; returns when the next is."""
        now = asyncio.get_running_loop().time()
        due = [key for key in self._pending if self._quiet_until.get(key, 0.0) <= now]
        if due and now < self._next_flush:
            return self._next_flush
        if due:
            self._next_flush = now + _TOGETHER_SECONDS
            try:
                await control.notify(due)
            except JobwireError:
                raise
            except Exception:
                # A message that cannot be sent must not stop the others for ever; the floors do without it.
                log.exception("signals could not be sent", count=len(due))
            for key in due:
                del self._pending[key]
                self._quiet_until[key] = now + _COALESCE_SECONDS
        if len(self._quiet_until) > 1_000:
            self._quiet_until = {key: until for key, until in self._quiet_until.items() if until > now}
        return min((self._quiet_until.get(key, 0.0) for key in self._pending), default=float("inf"))

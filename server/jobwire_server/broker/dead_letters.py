"""Carries dead letters to their queues, sends them back to work, and has keys that failed jobs hold up go on.

Letters are carried as soon as an Ack left some, and else found by the look for what time brings; several replicas do it
beside each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import structlog

from jobwire_server.domain.dead_letters import (
    BlockedKey,
    Carried,
    RedriveOrder,
    RedrivePlace,
    RedriveStep,
    Unblock,
    Unblocked,
    Undelivered,
)
from jobwire_server.domain.errors import JobwireError
from jobwire_server.store import blocked_keys, letters, redriving
from jobwire_server.store.database import Database

from .queue_book import QueueBook

log = structlog.get_logger(__name__)

_WARNING_SECONDS = 60.0
"""A queue that refuses dead letters is told of so often."""


class DeadLetters:
    """The part of a broker that looks after dead letters.

    `on_ready(queue)` is called when jobs became ready, `on_gates(queue)` when gates are to be looked at,
    `on_changed(queue)` when jobs may have changed, `on_due()` when some become due later.
    """

    def __init__(
        self,
        database: Database,
        queues: QueueBook,
        *,
        on_ready: Callable[[str], None],
        on_gates: Callable[[str], None],
        on_changed: Callable[[str], None],
        on_due: Callable[[], None],
    ) -> None:
        self._database = database
        self._queues = queues
        self._on_ready = on_ready
        self._on_gates = on_gates
        self._on_changed = on_changed
        self._on_due = on_due
        self._due = asyncio.Event()
        self._warned: dict[str, float] = {}

    def poke(self) -> None:
        """There are letters to be carried."""
        self._due.set()

    async def run(self) -> None:
        """Carries letters until cancelled; what an error keeps back is found by the next look."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                while (carried := await letters.carry(self._database)) is not None:
                    self._carried(carried)
            except JobwireError as error:
                log.warning("carrying dead letters failed", error=error.message)
            except Exception:
                log.exception("carrying dead letters failed")

    def _carried(self, carried: Carried) -> None:
        if carried.taken:
            self._on_gates(carried.target) if carried.gated else self._on_ready(carried.target)
        if (
            carried.refused
            and time.monotonic() - self._warned.get(carried.target, -_WARNING_SECONDS) > _WARNING_SECONDS
        ):
            self._warned[carried.target] = time.monotonic()
            log.warning(
                "dead letters were refused by their queue and will be tried again; ListUndelivered says why",
                queue=carried.target,
                letters=carried.refused,
            )

    async def undelivered(
        self, target: str | None, after: tuple[str, UUID, datetime] | None, limit: int
    ) -> Sequence[Undelivered]:
        """A page of the letters that were refused, for one queue or all."""
        return await letters.undelivered(self._database, target, after, limit)

    async def redrive(self, order: RedriveOrder, place: RedrivePlace) -> RedriveStep:
        """One step of a redrive."""
        await self._queues.find(order.queue)
        if order.destination is not None:
            await self._queues.find(order.destination)
        step = await redriving.redrive(self._database, order, place)
        if order.dry_run or any(result.new_id is None for result in step.results):
            # What stays was out of sight meanwhile, and is back where claims have looked already.
            self._on_ready(order.queue)
        if order.dry_run:
            return step
        for queue in {result.queue for result in step.results if result.new_id is not None}:
            (self._on_gates if queue in step.gated else self._on_ready)(queue)
        if step.results:
            self._on_changed(order.queue)
        if order.rate:
            self._on_due()
        return step

    async def blocked_keys(self, queue: str, after: str | None, limit: int) -> list[BlockedKey]:
        """A page of keys that failed jobs hold up."""
        await self._queues.find(queue)
        return await blocked_keys.list_blocked(self._database, queue, after, limit)

    async def unblock(self, queue: str, keys: Sequence[str], action: Unblock) -> list[Unblocked]:
        """Decides about the failed jobs that hold up `keys`."""
        await self._queues.find(queue)
        results = await blocked_keys.unblock(self._database, queue, keys, action)
        self._on_gates(queue)
        self._on_changed(queue)
        if action is Unblock.DEAD_LETTER:
            self.poke()
        return results

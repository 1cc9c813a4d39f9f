"""Sweeps up: jobs that have waited for longer than their queues allow, and what keys, groups and older servers leave.

Any replica may do it; several do not disturb each other. No step looks at more than so many rows, and the looks for
jobs that waited take a small part of the time only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any
from uuid import UUID

import structlog

from jobwire_server.domain.errors import JobwireError
from jobwire_server.store import sweeping as store
from jobwire_server.store.database import Database

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 60.0
_LOOK_SHARE = 0.05
"""The most of the time that looks for jobs that waited for too long may take."""


class Sweeper:
    """Tells whom it concerns: `on_cancelled(queue, ids)` of jobs, `on_gates(queue)` of gates to be looked at."""

    def __init__(
        self,
        database: Database,
        poll_seconds: float,
        *,
        on_cancelled: Callable[[str, Iterable[UUID]], None],
        on_gates: Callable[[str], None],
    ) -> None:
        self._database = database
        self._poll = poll_seconds
        self._on_cancelled = on_cancelled
        self._on_gates = on_gates
        self._waiting: Sequence[str] = ()
        self._look = asyncio.Event()

    def waiting(self, queues: Sequence[str]) -> None:
        """The queues whose jobs may wait for so long only, as they are now."""
        self._waiting = queues
        if queues:
            self._look.set()

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What is to run until it is cancelled, each by itself."""
        return [self._forever("jobs that waited", self._overdue), self._forever("sweeping", self._sweep)]

    async def _forever(self, what: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await step()
            except JobwireError as error:
                log.warning("sweeping failed", what=what, error=error.message)
                await asyncio.sleep(self._poll)
            except Exception:
                log.exception("sweeping failed", what=what)
                await asyncio.sleep(self._poll)

    async def _overdue(self) -> None:
        await self._look.wait()
        self._look.clear()
        for queue in self._waiting:
            after: UUID | None = None
            while True:
                began = time.monotonic()
                found = await store.cancel_overdue(self._database, queue, after)
                if found.ids:
                    self._on_cancelled(queue, found.ids)
                if found.upto is None:
                    break
                after = found.upto
                await asyncio.sleep((time.monotonic() - began) / _LOOK_SHARE)
        await asyncio.sleep(self._poll)

    async def _sweep(self) -> None:
        await asyncio.sleep(_SWEEP_SECONDS)
        await sweep(self._database, self._on_gates)


async def sweep(database: Database, on_gates: Callable[[str], None]) -> None:
    """Sweeps up once what keys, groups and older servers leave behind."""
    guard: store.GuardPlace | None = store.FIRST_GUARD
    while guard is not None:
        guard, _ = await store.sweep_guards(database, guard)
    for queue in await store.gated_queues(database):
        while await store.sweep_turns(database, queue):
            pass
        after: UUID | None = None
        more = True
        while more:
            after, found = await store.sweep_slots(database, queue, after)
            more = after is not None
            if found:
                on_gates(queue)

"""Has the gates of queues let in who is next, as soon as something befell their jobs.

One look at a time for each queue; what happens meanwhile makes another one follow. Whatever is missed here, by a crash
or an error, is found by the floor under signals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from jobwire_server.domain.errors import JobwireError
from jobwire_server.store import gates
from jobwire_server.store.database import Database

from . import background

log = structlog.get_logger(__name__)


class Gatekeeper:
    """`on_admitted(queue)` is called when jobs became ready."""

    def __init__(self, database: Database, on_admitted: Callable[[str], None]) -> None:
        self._database = database
        self._on_admitted = on_admitted
        self._again: dict[str, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def poke(self, queue: str) -> None:
        """Something befell jobs of this gated queue."""
        if queue in self._again:
            self._again[queue] = True
            return
        self._again[queue] = False
        task = background.start(self._look(queue), f"gates {queue}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, queue: str) -> None:
        try:
            more = True
            while more:
                self._again[queue] = False
                tickets, left = await gates.admit(self._database, queue)
                if tickets:
                    self._on_admitted(queue)
                more = left or self._again[queue]
        except JobwireError as error:
            log.warning("looking after gates failed", queue=queue, error=error.message)
        except Exception:
            log.exception("looking after gates failed", queue=queue)
        finally:
            del self._again[queue]

    async def stop(self) -> None:
        """Ends what is under way."""
        await background.end(self._tasks)

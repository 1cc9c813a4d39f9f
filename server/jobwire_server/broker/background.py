"""Tasks that outlive the call in which they begin.

They start with an empty context, so that their log lines do not carry the request id of whoever happened to call first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

_CANCEL_AGAIN_SECONDS = 1.0


def start(work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
    """Runs `work` in a task of its own. The caller keeps the task."""
    return asyncio.create_task(work, name=name, context=Context())


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until all have ended, whatever they end with.

    Once is not enough: before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes together with what it
    waits for, and the pool waits for its connections by it.
    """
    all_ = pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*all_, return_exceptions=True)

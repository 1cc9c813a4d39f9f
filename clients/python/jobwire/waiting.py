"""What asyncio lacks of waiting and cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def asked_to_end() -> bool:
    """Whether a CancelledError is meant for the present task, and not only for a call that it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until an event is set, but at most so long (None: for ever); returns whether it is."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def first_of(*waits: Coroutine[Any, Any, Any], within: float) -> None:
    """Wait until one of several is done, but at most so long, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

"""Tasks that outlive the call in which they begin.

They start with an empty context, so that their log lines do not carry the request id of whoever happened to call first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
    """Runs `work` in a task of its own. The caller keeps the task."""
    return asyncio.create_task(work, name=name, context=Context())

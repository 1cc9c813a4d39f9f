"""Group commit.

Calls that arrive while a statement is under way go together into the next one; when idle, nothing waits. Callers that
wait for their answers before they call again fall into two groups by this, which take turns and pay for two commits. So
after a group has been answered the next one waits for as many calls as were there, but never longer than a part of what
the statement took: those who are coming again come at once. Nobody waits for more than one group holds.

Fate is not shared: if a group fails for another reason than a lost database, each of its calls is run again alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from jobwire_server.domain.errors import DatabaseUnavailable

from . import background

Call = TypeVar("Call")
Answer = TypeVar("Answer")

_WAIT_SHARE = 0.5
"""How long to wait for callers to come again, as a share of the time that their last group took."""
_WAIT_SECONDS = 0.003


class GroupCommit(Generic[Call, Answer]):
    """Runs calls in groups, one group at a time.

    `run` gets a group and returns an answer for each call, in order. `fits` says whether a call may join a group begun;
    a call that does not fit begins the next one.
    """

    def __init__(
        self, run: Callable[[Sequence[Call]], Awaitable[Sequence[Answer]]], fits: Callable[[Sequence[Call], Call], bool]
    ) -> None:
        self._run = run
        self._fits = fits
        self._waiting: deque[tuple[Call, asyncio.Future[Answer]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._expected = 0
        self._complete: asyncio.Future[None] | None = None

    async def submit(self, call: Call) -> Answer:
        """Runs `call` with its group.

        Returns its answer or raises its error. If the caller is cancelled meanwhile, the call still runs.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((call, future))
        if self._worker is None:
            self._worker = background.start(self._work())
        elif len(self._waiting) >= self._expected:
            self._go_on()
        return await future

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return self._worker is None

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group: list[Call] = []
            futures: list[asyncio.Future[Answer]] = []
            while self._waiting and (not group or self._fits(group, self._waiting[0][0])):
                call, future = self._waiting.popleft()
                group.append(call)
                futures.append(future)
            began = loop.time()
            await self._answer(group, futures)
            if self._waiting and self._has_room():
                await self._gather(len(group) + len(self._waiting), loop.time() - began)
        self._worker = None

    def _has_room(self) -> bool:
        """Whether all that wait go into one group."""
        *others, last = (call for call, _ in self._waiting)
        return not others or self._fits(others, last)

    async def _gather(self, expected: int, took: float) -> None:
        """Waits until `expected` calls are there, or for a share of what the last group took."""
        loop = asyncio.get_running_loop()
        self._expected = expected
        self._complete = loop.create_future()
        timer = loop.call_later(min(_WAIT_SECONDS, took * _WAIT_SHARE), self._go_on)
        await self._complete
        timer.cancel()

    def _go_on(self) -> None:
        if self._complete is not None and not self._complete.done():
            self._complete.set_result(None)

    async def _answer(self, group: Sequence[Call], futures: Sequence[asyncio.Future[Answer]]) -> None:
        try:
            answers = await self._run(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller is told
            if len(group) > 1 and not isinstance(error, DatabaseUnavailable):
                for call, future in zip(group, futures, strict=True):
                    await self._answer([call], [future])
                return
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)

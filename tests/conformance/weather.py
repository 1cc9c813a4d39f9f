"""What a network and its servers do to a worker in a storm: the faults of the scenario `storm`, drawn from a seed.

Always holds: a fault lasts shorter than a worker's silence and a session's grace, and when it is over all is well: the
proxy passes everything on, to a replica that serves. So whatever a worker loses, it loses by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

from tests.chaos.proxy import BOTH, Proxy, Trap
from tests.system.conftest import ServerProcess

MARK = "of the storm"
"""Every job and every end of a run bears it, so that a fault finds them in what passes by."""

_TRAP_WAITS = 2.0
"""How long a trap is set for what should come by, in seconds."""

_LONGER_THAN_AN_ATTEMPT = 6.0
"""Clients give up an attempt of an Ack after 5 s and make another one, in seconds."""


class Weather:
    """Makes faults between a worker and two replicas.

    Args:
        proxy: what the worker takes for the server; leads to the first of the replicas.
        replicas: may be stopped and started.
        draw: where everything that is left open is drawn from.
        hard: whether there are faults, too, that outlast the attempt of a call.
    """

    def __init__(
        self, proxy: Proxy, replicas: Sequence[ServerProcess], draw: random.Random, *, hard: bool = False
    ) -> None:
        self.story: list[str] = []
        """What has happened so far, for people."""
        self.session = ""
        """The id of the worker's session; empty until it is known."""
        self._proxy = proxy
        self._here, self._there = replicas
        self._draw = draw
        self._began = time.monotonic()
        self._restarting: asyncio.Task[None] | None = None
        self._faults: dict[Callable[[], Awaitable[None]], int] = {
            self._cut: 3,
            self._refuse: 3,
            self._freeze: 3,
            self._freeze_and_cut: 3,
            self._lose_an_answer: 6,
            self._lose_an_end: 3,
            self._lose_a_delivery: 3,
            self._cut_the_next_call: 3,
            self._cut_the_next_answer: 3,
            self._lose_a_resume: 5,
            self._go_elsewhere: 3,
            self._part_unnoticed: 3,
            self._swallow: 2,
            self._slow_down_and_cut: 2,
            self._freeze_for_long: 2 * hard,
        }

    async def storm(self, faults: int) -> None:
        """So many faults, one upon the other."""
        kinds = list(self._faults)
        for fault in self._draw.choices(kinds, self._faults.values(), k=faults):
            await self._happens(fault)

    @contextlib.asynccontextmanager
    async def silence(self) -> AsyncIterator[None]:
        """Nothing passes while the block is done and some time longer, and what was on its way then is lost."""
        self.story.append(f"{self._time} silence")
        self._proxy.freeze()
        yield
        await asyncio.sleep(self._draw.uniform(0.3, 0.8))
        self._proxy.cut()
        self._proxy.heal()

    async def deploy(self) -> None:
        """Both replicas drain and come back, one after the other; the worker is led to the one that serves."""
        await self._happens(self._drain)
        await self._happens(self._drain)

    async def crash(self) -> None:
        """A replica is killed and comes back; the worker is led to the other one."""
        await self._happens(self._kill)

    async def is_over(self) -> None:
        """Wait until both replicas serve."""
        if self._restarting is not None:
            await self._restarting
            self._restarting = None

    async def _happens(self, fault: Callable[[], Awaitable[None]]) -> None:
        self.story.append(f"{self._time} {getattr(fault, '__name__', fault)[1:].replace('_', ' ')}")
        await fault()
        self._proxy.heal()

    @property
    def _time(self) -> str:
        return f"{time.monotonic() - self._began:6.2f} s:"

    # Connections.

    async def _cut(self) -> None:
        self._proxy.cut()

    async def _refuse(self) -> None:
        self._proxy.refuse()
        self._proxy.cut()
        await self._pause(0.7)

    async def _freeze(self) -> None:
        self._proxy.freeze(self._draw.choice([None, *BOTH]))
        await self._pause(1.2)

    async def _freeze_for_long(self) -> None:
        self._proxy.freeze(self._draw.choice([None, *BOTH]))
        await asyncio.sleep(_LONGER_THAN_AN_ATTEMPT)

    async def _freeze_and_cut(self) -> None:
        self._proxy.freeze(self._draw.choice([None, *BOTH]))
        await self._pause(0.5)
        self._proxy.cut()

    async def _swallow(self) -> None:
        self._proxy.swallow(self._draw.choice([None, *BOTH]))
        await self._pause(0.5)

    async def _slow_down_and_cut(self) -> None:
        self._proxy.trickle(2_000, piece=100, direction=self._draw.choice([None, *BOTH]))
        await self._pause(1.0)
        self._proxy.cut()

    # What passes by.

    async def _lose_an_answer(self) -> None:
        """The server takes an end, and the worker does not hear of that."""
        await self._springs(self._proxy.freeze_answers_on(MARK.encode()))
        await self._pause(0.3)
        self._proxy.cut()

    async def _lose_an_end(self) -> None:
        await self._springs(self._proxy.cut_on("up", MARK.encode(), after=self._draw.randrange(16)))

    async def _lose_a_delivery(self) -> None:
        """The server takes jobs for the worker, which does not hear of them."""
        await self._springs(self._proxy.cut_on("down", MARK.encode(), after=self._draw.randrange(16)))

    async def _cut_the_next_call(self) -> None:
        """Somewhere between the first byte of a new connection and the end of its first calls."""
        trap = self._proxy.cut_on("up", after=self._draw.randrange(600))
        self._proxy.cut()
        await self._springs(trap)

    async def _cut_the_next_answer(self) -> None:
        trap = self._proxy.cut_on("down", after=self._draw.randrange(300))
        self._proxy.cut()
        await self._springs(trap)

    async def _lose_a_resume(self) -> None:
        """The server takes a resume, at this replica or at the other one, and the worker does not hear of that."""
        if self._draw.random() < 0.5:
            await self._turn()
        trap = self._proxy.cut_on("down", self.session.encode(), after=self._draw.randrange(60))
        self._proxy.cut()
        await self._springs(trap)
        if self._draw.random() < 0.5:
            await self._turn()

    # Replicas.

    async def _go_elsewhere(self) -> None:
        await self._turn()
        self._proxy.cut()

    async def _part_unnoticed(self) -> None:
        """The worker goes to the other replica, while the old one takes it for attached."""
        await self._turn()
        self._proxy.half_open("up")
        await self._pause(0.7)

    async def _drain(self) -> None:
        await self._stops(lambda server: server.send(signal.SIGTERM))

    async def _kill(self) -> None:
        await self._stops(ServerProcess.kill)

    async def _stops(self, stop: Callable[[ServerProcess], None]) -> None:
        """The replica to which the worker is connected, before or after new connections are led to the other one."""
        leaving = self._here
        early = self._draw.random() < 0.5
        await self.is_over()
        if early:
            await self._turn()
        stop(leaving)
        await self._pause(0.5)
        if not early:
            await self._turn()
        self._restarting = asyncio.create_task(_comes_back(leaving))

    async def _turn(self) -> None:
        """Lead new connections to the other replica."""
        await self.is_over()
        self._here, self._there = self._there, self._here
        self._proxy.lead_to("127.0.0.1", self._here.port)

    async def _pause(self, longest: float) -> None:
        await asyncio.sleep(self._draw.uniform(0, longest))

    async def _springs(self, trap: Trap) -> None:
        """Wait for what a trap is set for; it may not come, for instance while the worker pauses between attempts."""
        waiting: Coroutine[Any, Any, object] = trap.sprung.wait()
        try:
            await asyncio.wait_for(waiting, _TRAP_WAITS)
        except TimeoutError:
            self.story.append("          (nothing came by)")


async def _comes_back(server: ServerProcess) -> None:
    await asyncio.to_thread(server.ends)
    await asyncio.to_thread(server.start)

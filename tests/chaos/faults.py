"""What can go wrong in a run: each fault is done to a victim, lasts, and is undone, and is written down.

A fault's function does it, waits for `hold` seconds, and undoes it; when it returns, all is well again but for what the
service has to mend itself.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import psycopg

from tests.chaos.actors import BLOCK_SIGNAL
from tests.chaos.proxy import Direction, Proxy
from tests.chaos.rig import Member, Rig

STOP_BUDGET = 30.0
"""Seconds from SIGTERM to SIGKILL, as the platforms have it."""

Do = Callable[[Rig, Member | None, float], Awaitable[None]]


class NotInOrder(Exception):
    """A process that was asked to stop did not do so in order and in time."""


@dataclass(frozen=True)
class Kind:
    """A fault that can be drawn: what it is called, whom it befalls, how, for how long, and how often it is drawn."""

    name: str
    victims: str
    do: Do
    least: float
    most: float
    weight: int = 2
    needs_servers: int = 1


async def _restart(rig: Rig, victim: Member | None, hold: float) -> None:
    assert victim is not None
    begun = time.monotonic()
    victim.send(signal.SIGTERM)
    code = await victim.ended(STOP_BUDGET)
    if code != 0:
        raise NotInOrder(
            f"{victim.name} ended with {code}, {time.monotonic() - begun:.1f} s after SIGTERM: {victim.log}"
        )
    await asyncio.sleep(hold)
    await victim.start()
    rig.note("restart", victim.name, begun)


async def _rolling(rig: Rig, _: Member | None, hold: float) -> None:
    for server in rig.some("server"):
        await _restart(rig, server, hold)
        await asyncio.sleep(1.0)


async def _kill(rig: Rig, victim: Member | None, hold: float) -> None:
    assert victim is not None
    begun = time.monotonic()
    await victim.kill()
    await asyncio.sleep(hold)
    await victim.start()
    rig.note("kill", victim.name, begun)


async def _freeze(rig: Rig, victim: Member | None, hold: float) -> None:
    assert victim is not None
    begun = time.monotonic()
    victim.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(hold)
    finally:
        victim.send(signal.SIGCONT)
    rig.note("freeze", victim.name, begun)


async def _block(rig: Rig, victim: Member | None, hold: float) -> None:
    """The worker's event loop stands still, for as long as it was told at its start."""
    assert victim is not None
    begun = time.monotonic()
    victim.send(BLOCK_SIGNAL)
    await asyncio.sleep(hold)
    rig.note("block", victim.name, begun)


def _on_links(what: str, begin: Callable[[Proxy], None]) -> Do:
    async def do(rig: Rig, victim: Member | None, hold: float) -> None:
        assert victim is not None
        begun = time.monotonic()
        for link in victim.links:
            begin(link)
        try:
            await asyncio.sleep(hold)
        finally:
            for link in victim.links:
                link.heal()
        rig.note(what, f"{victim.name} to postgres" if victim.name.startswith("server-") else victim.name, begun)

    return do


def _cut(link: Proxy) -> None:
    link.cut()


def _away(link: Proxy) -> None:
    link.refuse()
    link.cut()


def _half_open(told: Direction) -> Callable[[Proxy], None]:
    return lambda link: link.half_open(told)


def _frozen(direction: Direction | None) -> Callable[[Proxy], None]:
    return lambda link: link.freeze(direction)


def _slow(link: Proxy) -> None:
    link.delay(0.05, jitter=0.1)


def _trickling(link: Proxy) -> None:
    link.trickle(4_000, piece=7)


def _answer_lost(link: Proxy) -> None:
    """What is asked arrives; with the first byte of what is answered the connection breaks."""
    link.cut_on("down")


async def _stop_database(rig: Rig, _: Member | None, hold: float) -> None:
    begun = time.monotonic()
    await asyncio.to_thread(rig.postgres.stop)
    await asyncio.sleep(hold)
    await asyncio.to_thread(rig.postgres.start)
    rig.note("stop", "postgres", begun)


async def _crash_database(rig: Rig, _: Member | None, hold: float) -> None:
    begun = time.monotonic()
    await asyncio.to_thread(rig.postgres.kill)
    await asyncio.sleep(hold)
    await asyncio.to_thread(rig.postgres.start)
    rig.note("crash", "postgres", begun)


async def _kill_backend(rig: Rig, _: Member | None, hold: float) -> None:
    """SIGKILL of one backend: PostgreSQL ends all others and recovers as from a crash."""
    begun = time.monotonic()
    with rig.database() as connection:
        row = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'jobwire' ORDER BY random() LIMIT 1"
        ).fetchone()
    if row is not None:
        with suppress(ProcessLookupError):
            os.kill(row.pid, signal.SIGKILL)
    await asyncio.sleep(1.0)
    rig.note("kill-backend", "postgres", begun)


async def _end_backends(rig: Rig, _: Member | None, hold: float) -> None:
    begun = time.monotonic()
    with rig.database() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobwire'")
    rig.note("end-backends", "postgres", begun)


async def _read_only(rig: Rig, _: Member | None, hold: float) -> None:
    begun = time.monotonic()
    for value in ("on", "off"):
        with rig.database() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
            connection.execute("SELECT pg_reload_conf()")
        if value == "on":
            await asyncio.sleep(hold)
    rig.note("read-only", "postgres", begun)


async def _connections(rig: Rig, _: Member | None, hold: float) -> None:
    """Others take all connections, and the servers lose theirs."""
    begun = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(rig.database()).execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobwire'"
        )
        with suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(rig.database())
        await asyncio.sleep(hold)
    rig.note("connections", "postgres", begun)


async def _lock(rig: Rig, _: Member | None, hold: float) -> None:
    """A maintenance job locks the hot tables."""
    begun = time.monotonic()
    with rig.database() as connection, suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        connection.execute("SET lock_timeout = '2s'")
        with connection.transaction():
            connection.execute("LOCK TABLE jobwire.live_job, jobwire.ready, jobwire.claim IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(hold)
    rig.note("lock", "postgres", begun)


KINDS = (
    Kind("restart", "server", _restart, 0.0, 3.0, weight=6),
    Kind("rolling", "rig", _rolling, 0.0, 1.0, weight=4),
    Kind("kill", "server", _kill, 0.0, 3.0, weight=4),
    Kind("freeze", "server", _freeze, 0.5, 12.0, weight=3, needs_servers=2),
    Kind("restart", "worker", _restart, 0.0, 2.0),
    Kind("kill", "worker", _kill, 0.0, 5.0, weight=4),
    Kind("freeze", "worker", _freeze, 0.5, 12.0, weight=3),
    Kind("block", "worker", _block, 5.0, 5.0),
    Kind("cut", "worker", _on_links("cut", _cut), 0.0, 0.5, weight=4),
    Kind("away", "worker", _on_links("away", _away), 0.5, 8.0),
    Kind("half-open-up", "worker", _on_links("half-open", _half_open("up")), 1.0, 8.0),
    Kind("half-open-down", "worker", _on_links("half-open", _half_open("down")), 1.0, 8.0),
    Kind("freeze-up", "worker", _on_links("freeze-up", _frozen("up")), 1.0, 10.0),
    Kind("freeze-down", "worker", _on_links("freeze-down", _frozen("down")), 1.0, 10.0),
    Kind("delay", "worker", _on_links("delay", _slow), 2.0, 6.0),
    Kind("trickle", "worker", _on_links("trickle", _trickling), 2.0, 5.0, weight=1),
    Kind("answer-lost", "worker", _on_links("answer-lost", _answer_lost), 0.5, 2.0, weight=4),
    Kind("cut", "publisher", _on_links("cut", _cut), 0.0, 0.5),
    Kind("freeze-down", "publisher", _on_links("freeze-down", _frozen("down")), 1.0, 8.0, weight=1),
    Kind("answer-lost", "publisher", _on_links("answer-lost", _answer_lost), 0.5, 2.0, weight=4),
    Kind("cut", "server to postgres", _on_links("cut", _cut), 0.0, 0.5, weight=4),
    Kind("away", "server to postgres", _on_links("away", _away), 0.5, 6.0),
    Kind("freeze", "server to postgres", _on_links("freeze", _frozen(None)), 0.5, 6.0),
    Kind("delay", "server to postgres", _on_links("delay", _slow), 2.0, 5.0),
    Kind("answer-lost", "server to postgres", _on_links("answer-lost", _answer_lost), 0.5, 2.0, weight=4),
    Kind("stop", "postgres", _stop_database, 0.0, 5.0),
    Kind("crash", "postgres", _crash_database, 0.0, 3.0, weight=4),
    Kind("kill-backend", "postgres", _kill_backend, 0.0, 0.0, weight=3),
    Kind("end-backends", "postgres", _end_backends, 0.0, 0.0),
    Kind("read-only", "postgres", _read_only, 1.0, 4.0),
    Kind("connections", "postgres", _connections, 1.0, 4.0),
    Kind("lock", "postgres", _lock, 0.5, 3.0),
)


@dataclass(frozen=True)
class Drawn:
    """A fault about to be done."""

    kind: Kind
    victim: Member | None
    hold: float

    @property
    def title(self) -> str:
        """For people: what is done to whom, for how long."""
        whom = self.victim.name if self.victim is not None else self.kind.victims
        if self.kind.victims == "server to postgres":
            whom += " to postgres"
        return f"{self.kind.name} {whom}, {self.hold:.1f} s"

    async def do(self, rig: Rig) -> None:
        """Does it, and undoes it."""
        await self.kind.do(rig, self.victim, self.hold)


def draw(chance: random.Random, rig: Rig, only: frozenset[str] = frozenset()) -> Drawn:
    """A fault by chance. `only`: names such as `kill` or `kill server`; empty takes all."""
    kinds = [
        kind
        for kind in KINDS
        if rig.servers >= kind.needs_servers
        and (not only or kind.name in only or f"{kind.name} {kind.victims}" in only)
    ]
    [kind] = chance.choices(kinds, weights=[kind.weight for kind in kinds])
    members = rig.some(kind.victims.split()[0])
    return Drawn(kind, chance.choice(members) if members else None, chance.uniform(kind.least, kind.most))

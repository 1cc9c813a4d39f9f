"""One run: load, faults drawn from a seed, the wait for quiet, and what the checker makes of it."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import gated, history
from tests.chaos.checker import Report, check
from tests.chaos.faults import Drawn, NotInOrder, draw
from tests.chaos.history import Fault, Terms
from tests.chaos.recovery import Recoveries
from tests.chaos.rig import Graces, Member, Rig

Say = Callable[[str], None]

SHORT = Graces(owner=6.0, drain=12.0, cancel=3.0, renew=1.0, poll=0.5, resume=3.0, heartbeat=1.0)
"""Impatience, so that a run of a minute sees every grace end."""

_QUIET_SECONDS = 180.0
_SAY_SECONDS = 5.0
_ERRORS = re.compile(rb'"level": ?"(?:error|critical)"')
_POSTGRES_ERRORS = ("deadlock detected", "PANIC:")


@dataclass(frozen=True)
class Plan:
    """What a run is made of. Seconds and rates are aims; the run ends when all is published and finished."""

    seed: int
    servers: int = 2
    workers: int = 3
    seconds: float = 40.0
    jobs: int = 6_000
    pause: float = 2.0
    """Between two faults, on average."""
    graces: Graces = field(default_factory=lambda: SHORT)
    only: frozenset[str] = frozenset()
    concurrency: int = 20


@dataclass
class Result:
    """What a run showed. `problems` are in words; without any the run is good."""

    plan: Plan
    report: Report
    faults: list[Fault]
    recovery: Recoveries
    problems: list[str]
    seconds: float


async def run(plan: Plan, folder: Path, say: Say) -> Result:
    """Makes a run in `folder`, which must not exist yet, and judges it."""
    begun = time.monotonic()
    problems: list[str] = []
    async with Rig(
        folder,
        servers=plan.servers,
        workers=plan.workers,
        graces=plan.graces,
        concurrency=plan.concurrency,
        seed=plan.seed,
        rate=plan.jobs / plan.seconds,
    ) as rig:
        say(f"seed {plan.seed}: {plan.servers} servers, {plan.workers} workers, {plan.jobs:,} jobs; all in {folder}")
        await _load(plan, rig)
        trouble = asyncio.create_task(_faults(plan, rig, say, problems))
        watching = asyncio.create_task(_watch(rig, say))
        try:
            await trouble
            await _quiet(plan, rig, say, problems)
        finally:
            for task in (trouble, watching):
                task.cancel()
            await asyncio.gather(trouble, watching, return_exceptions=True)
        end = await asyncio.to_thread(rig.end_state)
        for part in ("worker", "operator", "server"):
            await _all_end(rig.some(part), problems)
        problems += _logged(rig)
    say("reading the history")
    events = history.read(rig.record_folder)
    graces = plan.graces
    terms = Terms(graces.owner, graces.drain, graces.renew, graces.poll)
    report = await asyncio.to_thread(check, events, end, terms)
    if not report.ok:
        problems.append(str(report))
    faults = [event for event in events if isinstance(event, Fault)]
    return Result(plan, report, faults, Recoveries(events, end), problems, time.monotonic() - begun)


async def _load(plan: Plan, rig: Rig) -> None:
    rate = plan.jobs / plan.seconds
    for number in (1, 2):
        await rig.add(
            "publisher",
            f"publisher-{number}",
            rotate=number,
            queues=gated.DRAWN,
            rate=rate / 2,
            total=plan.jobs // 2,
            seed=plan.seed * 10 + number,
            long_ms=round(plan.graces.resume * 700),
        )


async def _faults(plan: Plan, rig: Rig, say: Say, problems: list[str]) -> None:
    chance = random.Random(plan.seed)
    begun = time.monotonic()
    await asyncio.sleep(min(5.0, plan.seconds / 8))
    while (at := time.monotonic() - begun) < plan.seconds or any(member.running for member in rig.some("publisher")):
        if at > 3 * plan.seconds + _QUIET_SECONDS:
            problems.append("the publishers did not come to an end")
            return
        # One after the other, so that each can be told from the next, and now and then two at once.
        drawn = [draw(chance, rig, plan.only)]
        if chance.random() < 0.2:
            other = draw(chance, rig, plan.only)
            if not {drawn[0].victim, drawn[0].kind.victims} & {other.victim, other.kind.victims}:
                drawn.append(other)
        await asyncio.gather(*(_do(fault, rig, say, at, problems) for fault in drawn))
        await asyncio.sleep(chance.uniform(0.2, 2.0) * plan.pause)


async def _do(fault: Drawn, rig: Rig, say: Say, at: float, problems: list[str]) -> None:
    say(f"{at:7.1f} s  {fault.title}")
    try:
        await fault.do(rig)
    except NotInOrder as error:
        problems.append(str(error))
        if fault.victim is not None and not fault.victim.running:
            await fault.victim.start()


async def _watch(rig: Rig, say: Say) -> None:
    """Says how it goes; a member that ends by itself is a matter for the end, when its exit code is looked at."""
    while True:
        await asyncio.sleep(_SAY_SECONDS)
        try:
            say(f"           {await asyncio.to_thread(rig.live_jobs):,} jobs live")
        except Exception as trouble:
            say(f"           {type(trouble).__name__}")


async def _quiet(plan: Plan, rig: Rig, say: Say, problems: list[str]) -> None:
    """Waits until all that was published has an outcome."""
    await _all_end(rig.some("publisher"), problems, asked=False)
    for member in rig.some("rogue"):
        rig.note("kill", member.name, time.monotonic())
        await member.kill()
    limit = time.monotonic() + _QUIET_SECONDS + plan.graces.drain + plan.graces.owner
    while await asyncio.to_thread(rig.live_jobs):
        if time.monotonic() > limit:
            problems.append(f"{rig.live_jobs()} jobs were not finished in the end")
            return
        await asyncio.sleep(0.5)
    say("all jobs are finished")


async def _all_end(members: Iterable[Member], problems: list[str], *, asked: bool = True) -> None:
    for member in members:
        code = await (member.stop() if asked else member.ended(_QUIET_SECONDS))
        if code != 0:
            problems.append(f"{member.name} ended with {code}: {member.log}")


def _logged(rig: Rig) -> list[str]:
    """What the servers' and PostgreSQL's logs tell of that should never happen."""
    problems = [
        f"{server.name} logged an error: {line.decode(errors='replace')[:1_000]}"
        for server in rig.some("server")
        for line in server.log.read_bytes().splitlines()
        if _ERRORS.search(line)
    ]
    lines = rig.postgres.log_path.read_text(errors="replace").splitlines()
    return problems + [f"PostgreSQL logged: {line}" for line in lines if any(word in line for word in _POSTGRES_ERRORS)]

"""The jobs of the scenario `storm`: what each handler is told, and what must be recorded of that in the end.

Always holds: a job's life is drawn before it is published, so whatever comes later can be compared with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jobwire import JobInfo, JobState
from tests.conformance.driver import Driver, DriverFault, Event, Refused
from tests.conformance.weather import MARK

ERROR = "Gale"
"""The class of all errors here."""

LONGEST_RUN = 0.2
"""How long a handler takes at most, in seconds."""

RULES: Mapping[str, Any] = {"retry_limit": 3, "retry_delay": 0}
"""How the jobs are published: no job runs out of retries."""


@dataclass(frozen=True)
class Run:
    """What a handler is told one time that its job runs."""

    end: Literal["complete", "fail", "release"]
    text: str
    """Its output, or its error's message."""
    takes: float
    """How long it runs, in seconds."""
    says: Sequence[str]
    """What it says before its end: of `progress`, `checkpoint` and `extend`."""
    permanent: bool = False
    retry_in: float | None = None


@dataclass
class Life:
    """A job: its runs, one after the other, and what was heard of them."""

    name: str
    runs: Sequence[Run]
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Its handler does not end before this is set."""
    attempts: list[int] = field(default_factory=list)
    """Of those that have started."""
    checkpoint: Any = None
    """What was said last."""

    def wrong(self, job: JobInfo, *, left: bool = False) -> str:
        """What is recorded otherwise than was said, for people; empty: nothing.

        Args:
            job: as it stands in the end.
            left: whether the worker may have left before the job began, or had ended.
        """
        told = self.runs[: len(self.attempts)]
        failed = [run for run in told if run.end == "fail"]
        given_back = sum(run.end == "release" for run in told)
        expected: dict[str, Any] = {
            "errors": [(ERROR, run.text) for run in failed],
            "retry_count": sum(not run.permanent for run in failed),
            "release_count": given_back,
            "loss_count": 0,
            "state": JobState.COMPLETED,
            "output": self.runs[-1].text,
        }
        if self.runs[-1].end == "fail":
            expected |= {"state": JobState.FAILED, "output": None}
        waits = left and len(told) < len(self.runs)
        if waits:
            expected |= {"state": JobState.RETRY if job.attempt else JobState.CREATED, "output": None}
        shown: dict[str, Any] = {name: getattr(job, name) for name in expected}
        shown["errors"] = [(error.type, error.message) for error in job.errors]
        if waits:
            # What came when the worker took no jobs any more was given back unseen.
            shown["release_count"] = min(shown["release_count"], given_back)
        return "" if shown == expected else f"{self.name}: recorded is {shown}, which should be {expected}"


def drawn(draw: random.Random, name: str) -> Life:
    """A life; most jobs are completed at once."""
    kinds = {"completes": 12, "fails": 4, "is given back": 3, "gives up": 1}
    [kind] = draw.choices(list(kinds), list(kinds.values()))
    name = f"{name} {MARK}"
    runs = []
    for n in range(draw.randint(1, 2)):
        if kind == "fails":
            runs.append(_run(draw, "fail", f"{name} fails, {n}", retry_in=draw.choice([None, 0.0, 0.3])))
        elif kind == "is given back":
            runs.append(_run(draw, "release", ""))
    if kind == "gives up":
        runs.append(_run(draw, "fail", f"{name} gives up", permanent=True))
    else:
        runs.append(_run(draw, "complete", f"{name} is done"))
    return Life(name, runs)


def _run(draw: random.Random, end: Any, text: str, **how: Any) -> Run:
    says = [word for word in ("progress", "checkpoint", "extend") if draw.random() < 0.15]
    return Run(end, text, draw.uniform(0, LONGEST_RUN), says, **how)


class Crew:
    """Tells each handler of a driver what its job's life says, and notes what should not have happened.

    Args:
        driver: whose worker it is.
        places: how many handlers may run at once.
        payload: how large the jobs are at least, in characters.
    """

    def __init__(self, driver: Driver, places: int, *, payload: int = 0) -> None:
        self.payload = payload
        self.lives: dict[str, Life] = {}
        """By job id."""
        self.faults: list[str] = []
        self._driver = driver
        self._places = places
        self._seen = 0
        self._running: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def work(self) -> None:
        """Until cancelled, or nothing has started for as long as the suite waits for anything."""
        try:
            while True:
                await self._driver.hears_all("started", self._seen + 1)
                for event in self._driver.said("started")[self._seen :]:
                    self._seen += 1
                    self._begins(event)
        except DriverFault:
            pass
        finally:
            for task in self._tasks:
                task.cancel()

    @property
    def running(self) -> Sequence[str]:
        """The jobs whose handlers have started and have not been told their end."""
        return sorted(self._running)

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return len(self._running) == self._places

    @property
    def idle(self) -> bool:
        """Whether every handler that has started has been told its end."""
        return not self._tasks and self._seen == len(self._driver.said("started"))

    def let_go(self, ids: Iterable[str]) -> None:
        """These handlers may end."""
        for job_id in ids:
            self.lives[job_id].released.set()

    def _begins(self, event: Event) -> None:
        job_id = event["job_id"]
        life = self.lives[job_id]
        if job_id in self._running:
            self.faults.append(f"{life.name} was started again while it ran: {event}")
        elif len(self._running) >= self._places:
            self.faults.append(f"more than {self._places} ran at once when {life.name} was started")
        if event["checkpoint"] != life.checkpoint:
            self.faults.append(f"{life.name} began with the checkpoint {event['checkpoint']}, not {life.checkpoint}")
        if life.attempts and event["attempt"] <= life.attempts[-1]:
            self.faults.append(f"{life.name} began with attempt {event['attempt']} after {life.attempts}")
        life.attempts.append(event["attempt"])
        if len(life.attempts) > len(life.runs):
            self.faults.append(f"{life.name} was started again after its end, with the attempts {life.attempts}")
        self._running.add(job_id)
        task = asyncio.create_task(
            self._see_through(job_id, life, life.runs[min(len(life.attempts), len(life.runs)) - 1])
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_through(self, job_id: str, life: Life, run: Run) -> None:
        try:
            for word in run.says:
                await self._say(job_id, life, word)
            await asyncio.sleep(run.takes)
            await life.released.wait()
            self._running.discard(job_id)
            if run.end == "complete":
                await self._driver.complete(job_id, run.text)
            elif run.end == "release":
                await self._driver.release(job_id, delay=0)
            else:
                pause = {} if run.retry_in is None else {"retry_in": run.retry_in}
                await self._driver.fail(job_id, ERROR, run.text, permanent=run.permanent, **pause)
        except (Refused, DriverFault) as error:
            self.faults.append(f"{life.name}: {error}")

    async def _say(self, job_id: str, life: Life, word: str) -> None:
        if word == "extend":
            await self._driver.extend(job_id, 600)
        elif word == "progress":
            await self._driver.progress(job_id, 0.5, "half way")
        else:
            said = {"attempts": len(life.attempts)}
            await self._driver.progress(job_id, 0.5, "half way", checkpoint=said)
            life.checkpoint = said

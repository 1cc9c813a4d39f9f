"""A load that proves, at its end, that a fault cost nothing.

Publishers that never stop, workers with short jobs and with jobs that run for as long as the test holds them, all on
the real client. `proven` compares what they saw with what the database holds and with what the servers logged.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import psycopg

from jobwire import Client, Job, Worker
from tests.system.conftest import PATIENCE, ServerProcess, until

SECONDS_OF_A_JOB = 0.05
PAUSE = 0.05


class Load:
    """Publishers and workers on `replicas`; an async context manager around all of them.

    Each replica gets a publisher and a worker that prefer it and know the others. `dsn` and `schema`: where the end is
    read.
    """

    def __init__(self, dsn: str, schema: str, replicas: Sequence[ServerProcess], *, resume_grace: float = 15.0) -> None:
        self.dsn = dsn
        self.schema = schema
        self.replicas = list(replicas)
        self.acknowledged: dict[str, float] = {}
        """The ids of the jobs that were answered to be stored, and when."""
        self.starts: Counter[str] = Counter()
        self.dones: Counter[str] = Counter()
        self.release = asyncio.Event()
        """Ends the jobs that are held."""
        self.held: list[str] = []
        self._ending = asyncio.Event()
        self._stack = AsyncExitStack()
        self._publishing: list[asyncio.Task[None]] = []
        targets = [self._target(place) for place in range(len(replicas))]
        self._clients = [Client(target, timeout=300) for target in targets]
        self._workers = [Worker(target, resume_grace=resume_grace) for target in targets]
        for worker in self._workers:
            worker.handler("work", concurrency=10)(self._handle)
            # A second session with the same replica, for which there is nothing to do.
            worker.handler("idle")(self._handle)

    def _target(self, place: int) -> str:
        """All replicas, this one first."""
        turned = [*self.replicas[place:], *self.replicas[:place]]
        return "ipv4:" + ",".join(replica.address for replica in turned)

    @property
    def client(self) -> Client:
        return self._clients[0]

    async def __aenter__(self) -> Self:
        for context in (*self._clients, *self._workers):
            await self._stack.enter_async_context(context)
        self._publishing = [asyncio.create_task(self._publish(client)) for client in self._clients]
        await until(lambda: self.dones)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        self.release.set()
        for task in self._publishing:
            task.cancel()
        for worker in self._workers:
            worker.stop(now=True)
        await asyncio.gather(*self._publishing, return_exceptions=True)
        await self._stack.aclose()

    async def _handle(self, job: Job) -> dict[str, int]:
        self.starts[job.id] += 1
        if job.data["held"]:
            await self.release.wait()
        await asyncio.sleep(SECONDS_OF_A_JOB)
        self.dones[job.id] += 1
        return {"attempt": job.attempt}

    async def _publish(self, client: Client) -> None:
        while not self._ending.is_set():
            await self.publish(client)
            await asyncio.sleep(PAUSE)

    async def publish(self, client: Client | None = None, *, held: bool = False) -> str:
        """Publishes one job and notes it as acknowledged."""
        published = await (client or self.client).publish("work", {"held": held})
        self.acknowledged[published.job_id] = time.monotonic()
        return published.job_id

    async def hold(self, count: int = 4) -> None:
        """Begins jobs that run until the end; returns when they run."""
        self.held += await asyncio.gather(*(self.publish(held=True) for _ in range(count)))
        await until(lambda: all(self.starts[job_id] for job_id in self.held))

    async def claimed(self) -> None:
        """Returns just after a job was delivered."""
        seen = self.starts.total()
        await until(lambda: self.starts.total() > seen)

    async def flows(self) -> float:
        """Returns when jobs are published and done again; how many seconds that took."""
        began = time.monotonic()
        published, done = len(self.acknowledged), self.dones.total()
        await until(lambda: len(self.acknowledged) > published + 3 and self.dones.total() > done + 3)
        return time.monotonic() - began

    async def finish(self) -> None:
        """Publishes no more, lets the held jobs end, and returns when every acknowledged job has its outcome."""
        self._ending.set()
        await asyncio.gather(*self._publishing)
        self.release.set()
        async with asyncio.timeout(PATIENCE):
            while await self.rows("SELECT FROM live_job LIMIT 1"):
                await asyncio.sleep(0.1)

    async def rows(self, query: str, *params: object) -> list[Any]:
        """What a query sees past the servers, with our schema on its path."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await connection.execute(f'SET search_path = "{self.schema}"'.encode())
            cursor = await connection.execute(query.encode(), params or None)
            return await cursor.fetchall()

    async def proven(self) -> None:
        """Ends the load, and fails unless every promise was kept.

        Each acknowledged job was completed by its first delivery and was started once; nothing else was stored; no
        retry was used up and no loss counted; no session was ended; no server met an error that it does not know.
        """
        await self.finish()
        outcomes = await self.rows("SELECT id::text, state, attempt, retry_count, loss_count FROM archive")
        assert Counter(row[0] for row in outcomes) == Counter(dict.fromkeys(self.acknowledged, 1))
        assert {row[1:2] + row[3:] for row in outcomes} == {(4, 0, 0)}
        assert self.starts == self.dones == Counter(dict.fromkeys(self.acknowledged, 1))
        assert {row[2] for row in outcomes if row[0] in self.held} <= {1}
        for replica in self.replicas:
            understood(replica)
            ended = {"session lost", "ended the session of a replica that is gone"}
            assert [event for event in replica.events() if event["event"] in ended] == []


def understood(replica: ServerProcess) -> None:
    """Fails if the replica logged an error, or answered a call with one that is not of the contract."""
    events = replica.events()
    wrong = [event for event in events if event["level"] in ("error", "critical")]
    assert not wrong, wrong
    codes = Counter(event["code"] for event in events if event["event"] == "call")
    assert not codes.keys() & {"INTERNAL", "UNKNOWN"}, codes


def refusals(replica: ServerProcess) -> Counter[str]:
    """The reasons for which the replica refused calls."""
    return Counter(event["reason"] for event in replica.events() if event["event"] == "call" and "reason" in event)

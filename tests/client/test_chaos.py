"""The worker against a model of the server on which everything goes wrong at random.

Streams break, sessions are lost and taken over, leases run out, Acks and their answers vanish, the server drains.
Through all of it no rule of the protocol may be broken, and when it is over every job has been completed, exactly once
as the server counts, and no credit is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field

import grpc
import grpc.aio
import pytest

from jobwire import Job, ReleaseJob, Worker
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.scripted_server import CUT, RefusalError, ScriptedServer, Stream, delivery

CONCURRENCY = 8
JOBS = 150
LOST = RefusalError(grpc.StatusCode.NOT_FOUND, "SESSION_LOST")
TAKEN_OVER = RefusalError(grpc.StatusCode.ABORTED, "SESSION_TAKEN_OVER")
GONE = contextlib.suppress(grpc.aio.InternalError)
"""What is written to a stream that the client has just left never arrives, which is one more thing that goes wrong."""


@dataclass
class ModelSession:
    """What the server knows of a session."""

    id: str
    epoch: int = 1
    credits: int = 0
    stream: Stream | None = None
    in_flight: set[str] = field(default_factory=set)


class Model:
    """The server's side of docs/protocol.md in memory, for one queue and one session at a time."""

    def __init__(self, server: ScriptedServer, seed: int) -> None:
        self.random = random.Random(seed)
        self.server = server
        self.waiting = [f"job-{number}" for number in range(JOBS)]
        self.leases: dict[str, str] = {}
        self.applied: set[str] = set()
        self.completed: Counter[str] = Counter()
        self.all_done = asyncio.Event()
        self.chaos = True
        self.session: ModelSession | None = None
        self._sessions = 0
        self._handles = 0
        server.answer_ack = self.ack

    async def serve(self) -> None:
        """Take Subscribe calls one after the other."""
        while True:
            await self._subscribe(await self.server.stream())

    async def _subscribe(self, stream: Stream) -> None:
        request, session = stream.request, self.session
        if self.chaos and self.random.random() < 0.2:
            stream.end(self.random.choice([CUT, RefusalError(grpc.StatusCode.UNAVAILABLE, "DRAINING")]))
            return
        lost: list[str] = []
        if request.HasField("resume"):
            if session is None or session.id != request.resume.session_id:
                stream.end(LOST)
                return
            assert request.resume.epoch > session.epoch, "every Subscribe of a session carries a higher epoch"
            assert session.stream is None or session.stream.left.is_set(), "one stream at a time"
            held = set(request.resume.held)
            lost = [handle for handle in held if handle not in self.leases]
            for handle in set(self.leases) - held:
                self.waiting.insert(0, self.leases.pop(handle))
            session.in_flight = held - set(lost)
            session.epoch = request.resume.epoch
        else:
            self.end_session()
            self._sessions += 1
            session = self.session = ModelSession(f"s-{self._sessions}")
        session.stream, session.credits = stream, request.max_in_flight
        await stream.open(session.id, lost=lost)
        await self.dispatch()

    async def dispatch(self) -> None:
        """Deliver as much as the credits allow."""
        session = self.session
        if session is None or session.stream is None:
            return
        group = []
        while self.waiting and len(session.in_flight) < session.credits:
            self._handles += 1
            handle = f"h-{self._handles}"
            job = self.waiting.pop(0)
            self.leases[handle] = job
            session.in_flight.add(handle)
            group.append(delivery(handle, job_id=job))
        if group and not session.stream.over:
            with GONE:
                await session.stream.deliver(*group)

    async def ack(self, request: pb.AckRequest) -> pb.AckResponse:
        """Apply an Ack, or lose it, or lose the answer."""
        fate = self.random.random() if self.chaos else 1.0
        if fate < 0.15:
            raise CUT
        session = self.session if self.session is not None and self.session.id == request.session_id else None
        if session is not None and request.HasField("max_in_flight"):
            session.credits = request.max_in_flight
        results = [self._apply(item) for item in request.items]
        if session is not None and request.close_session:
            self.end_session()
        await self.dispatch()
        if fate < 0.3:
            raise RefusalError(grpc.StatusCode.DEADLINE_EXCEEDED)
        return pb.AckResponse(results=results, session_alive=session is not None or not request.session_id)

    def _apply(self, item: pb.AckItem) -> pb.AckResult:
        handle, kind = item.handle, item.WhichOneof("outcome")
        if kind != "extend" and self.session is not None:
            self.session.in_flight.discard(handle)
        if handle in self.applied:
            return pb.AckResult(status=pb.ACK_STATUS_ALREADY_APPLIED)
        if handle not in self.leases:
            return pb.AckResult(status=pb.ACK_STATUS_LEASE_LOST)
        if kind != "extend":
            job = self.leases.pop(handle)
            self.applied.add(handle)
            if kind == "complete":
                self.completed[job] += 1
                if len(self.completed) == JOBS:
                    self.all_done.set()
            else:
                self.waiting.append(job)
        return pb.AckResult(status=pb.ACK_STATUS_APPLIED)

    def end_session(self) -> None:
        """The session is over: what it held is given back."""
        self.waiting += self.leases.values()
        self.leases.clear()
        self.session = None

    async def misfortune(self) -> None:
        """Let one thing go wrong."""
        session = self.session
        if session is None or session.stream is None or session.stream.over:
            return
        with GONE:
            await self._happen(session.stream)

    async def _happen(self, stream: Stream) -> None:
        match self.random.choice(["cut", "cut", "drain", "lose", "take over", "expire", "expire", "heartbeat"]):
            case "cut":
                stream.end(CUT)
            case "drain":
                await stream.drain()
            case "lose":
                self.end_session()
                stream.end(CUT)
            case "take over":
                self.end_session()
                stream.end(TAKEN_OVER)
            case "expire" if self.leases:
                handle = self.random.choice(sorted(self.leases))
                self.waiting.append(self.leases.pop(handle))
                await stream.cancel(handle, pb.CANCEL_REASON_LEASE_LOST)
            case _:
                await stream.heartbeat()


class Crowd:
    """A handler that counts how many of it run at once."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.running = 0
        self.most = 0

    async def __call__(self, job: Job) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.random.random() < 0.1:
                raise ReleaseJob
            if self.random.random() < 0.1:
                raise ValueError("no luck")
            await job.progress(0.5)
            await asyncio.sleep(self.random.uniform(0, 0.03))
        finally:
            self.running -= 1


@pytest.mark.parametrize("seed", range(6))
async def test_all_jobs_are_completed_once_whatever_happens(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Less patience than in life, so that much can happen in a short test.
    monkeypatch.setattr("jobwire.retrying.Backoff.__init__.__defaults__", (0.01, 0.05))
    model, crowd = Model(server, seed), Crowd(seed)
    worker = Worker(server.address)
    worker.handler("q", concurrency=CONCURRENCY)(crowd)
    serving = asyncio.create_task(model.serve())
    async with asyncio.timeout(60), worker:
        for _ in range(60):
            await asyncio.sleep(0.02)
            await model.misfortune()
        model.chaos = False
        await model.all_done.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving  # an assertion of the model would show here
    assert set(model.completed.values()) == {1}
    assert crowd.most <= CONCURRENCY
    assert model.session is None, "the worker closed its session"
    assert model.leases == {}
    assert crowd.running == 0

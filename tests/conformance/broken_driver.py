"""The Python client's driver with one thing broken on purpose, for the tests of the suite itself.

Run as `broken_driver.py FAULT`; the faults are the functions below.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python/conformance"))

import driver
import grpc.aio

from jobwire import JobwireError, retrying, session
from jobwire.acking import Acker
from jobwire.connection import Connection
from jobwire.crew import Crew
from jobwire.outcome import StopReason
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.wire import new_job_id


def answers_no_heartbeat() -> None:
    async def nothing() -> None: ...

    def beat(_: Acker) -> asyncio.Task[None]:
        return asyncio.create_task(nothing())

    Acker.beat = beat  # type: ignore[method-assign]


def opens_a_new_session() -> None:
    refused = session.Session._refused

    def lost(self: session.Session, error: JobwireError, resuming: bool) -> float:
        self._standing.lost()
        return refused(self, error, resuming)

    session.Session._refused = lost  # type: ignore[method-assign]


def stays_on_a_dead_connection() -> None:
    async def stay(_: Connection, line: int) -> None: ...

    Connection.leave = stay  # type: ignore[method-assign]


def ignores_stop() -> None:
    Crew.stop = lambda *_: None  # type: ignore[method-assign]


def takes_more_than_it_may() -> None:
    Crew.places = property(lambda crew: crew._size + 2 - crew._dropped)  # type: ignore[method-assign, assignment]
    Crew.full = property(lambda _: False)  # type: ignore[method-assign, assignment]


def completes_at_once() -> None:
    handle = driver.Driver._handle

    async def early(self: driver.Driver, job: Any) -> None:
        self._kept = asyncio.create_task(handle(self, job))  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    driver.Driver._handle = early  # type: ignore[method-assign]


def says_an_end_once() -> None:
    async def forget(self: Acker, items: Mapping[str, pb.AckItem], _: JobwireError) -> None:
        self._settled(list(items))

    Acker._sort_out = forget  # type: ignore[method-assign, assignment]


def forgets_what_it_holds() -> None:
    """After a break the server gives back what still runs here, and delivers it again."""
    asked = session.Session._next_request

    def request(self: session.Session) -> pb.SubscribeRequest:
        request = asked(self)
        if request.HasField("resume"):
            del request.resume.held[:]
        return request

    session.Session._next_request = request  # type: ignore[method-assign]


def stops_handlers_at_a_break() -> None:
    refused = session.Session._refused

    def stop(self: session.Session, error: JobwireError, resuming: bool) -> float:
        self._crew.stop_all(StopReason.SILENCE)
        return refused(self, error, resuming)

    session.Session._refused = stop  # type: ignore[method-assign]


def loses_a_place_at_a_break() -> None:
    refused = session.Session._refused

    def smaller(self: session.Session, error: JobwireError, resuming: bool) -> float:
        self._crew._size = max(5, self._crew._size - 1)
        return refused(self, error, resuming)

    session.Session._refused = smaller  # type: ignore[method-assign]


def leaves_with_words_unsaid() -> None:
    async def nothing(*_: object) -> None: ...

    Acker.all_answered = nothing  # type: ignore[method-assign]
    Acker.close_session = nothing  # type: ignore[method-assign]


def repeats_under_new_ids() -> None:
    attempts = Connection.call

    async def call(self: Connection, method: Any, request: Any, timeout: float) -> Any:
        async def attempt(request: Any, **how: Any) -> Any:
            try:
                return await method(request, **how)
            except grpc.aio.AioRpcError:
                for spec in request.jobs:
                    spec.id = new_job_id()
                raise

        return await attempts(self, attempt, request, timeout)

    Connection.call = call  # type: ignore[method-assign]


def repeats_whatever_fails() -> None:
    retrying.worth_repeating = lambda _: True


def says_nothing_of_trouble() -> None:
    logging.getLogger("jobwire").setLevel(logging.ERROR)


def dies_of_sigterm() -> None:
    driver.Worker._signals = lambda _: signal_at_once()  # type: ignore[method-assign]

    class signal_at_once:  # noqa: N801
        def __enter__(self) -> None:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

        def __exit__(self, *_: object) -> None: ...


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    asyncio.run(driver.main())

"""Brokers as replicas: several in one process, each with its own pool, on one schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Self
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import (
    Ack,
    AckAnswer,
    Cancellation,
    Deliveries,
    Draining,
    Event,
    Heartbeat,
    Opened,
    Resume,
    Subscription,
)
from jobwire_server.broker.stream import Stream
from jobwire_server.broker.terms import BrokerTerms
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, AckResult, Complete, Delivery, NewJob, Outcome
from jobwire_server.store.database import Database
from tests.conftest import Postgres

QUICK = BrokerTerms(
    owner_grace_ms=1_500, drain_grace_ms=4_000, cancel_grace_ms=400, renew_interval_ms=150, poll_interval_ms=200
)
"""Graces short enough for a test, in the same order as the real ones."""


@pytest.fixture
async def replica(postgres: Postgres, schema: str) -> AsyncIterator[Callable[..., Awaitable[Broker]]]:
    """Makes brokers on the test's schema; they end with the test."""
    async with AsyncExitStack() as stack:

        async def make(**changes: object) -> Broker:
            database = await stack.enter_async_context(Database(postgres.served, schema))
            broker = await stack.enter_async_context(
                Broker(database, replace(QUICK, replica=UUID(int=uuid7().int), **changes))
            )
            await until(lambda: broker.ready)
            return broker

        yield make


@pytest.fixture
async def broker(replica: Callable[..., Awaitable[Broker]]) -> Broker:
    return await replica()


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns when the condition holds; fails if it does not come to hold."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def subscription(
    *queues: str, credits: int = 10, heartbeat_ms: int = 60_000, grace_ms: int = 15_000, resume: Resume | None = None
) -> Subscription:
    return Subscription(queues or ("work",), credits, "test-worker", heartbeat_ms, grace_ms, resume)


def jobs(count: int, **options: object) -> list[NewJob]:
    return [NewJob(UUID(int=uuid7().int), f'{{"n":{n}}}', **options) for n in range(count)]


async def publish(broker: Broker, count: int = 1, queue: str = "work", **options: object) -> list[UUID]:
    """Publishes jobs and returns their ids."""
    results = await broker.publish(await broker.queues.for_publish(queue), jobs(count, **options))
    assert all(result.created for result in results)
    return [result.id for result in results]


class Worker:
    """A client at the level of the broker: reads one stream, sorts its events, sends Acks."""

    def __init__(self, broker: Broker, terms: Subscription) -> None:
        self.broker = broker
        self.terms = terms
        self.events: list[Event] = []
        self.deliveries: list[Delivery] = []
        self.cancellations: list[Cancellation] = []
        self.heartbeats = 0
        self.answer_heartbeats = True
        self.drained = False
        self.ended: BaseException | bool | None = False
        self.opened: Opened
        self.sequence = 0
        self._stack = AsyncExitStack()
        self._stream: Stream
        self._reader: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._stream = await self._stack.enter_async_context(self.broker.subscribe(self.terms))
        first = await self._next()
        assert isinstance(first, Opened)
        self.opened = first
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def cut(self) -> None:
        """The stream ends from the client's side."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._stack.aclose()

    async def _next(self) -> Event | None:
        event = await self._stream.next_event()
        if event is not None:
            self.sequence += 1
            self._stream.written(self.sequence)
            self.events.append(event)
        return event

    async def _read(self) -> None:
        try:
            while (event := await self._next()) is not None:
                if isinstance(event, Deliveries):
                    self.deliveries.extend(event.deliveries)
                elif isinstance(event, Cancellation):
                    self.cancellations.append(event)
                elif isinstance(event, Heartbeat):
                    self.heartbeats += 1
                    if self.answer_heartbeats:
                        await self.sign()
                elif isinstance(event, Draining):
                    self.drained = True
            self.ended = True
        except Exception as error:
            self.ended = error
        if self.ended is True or isinstance(self.ended, Exception):
            await self._stack.aclose()

    async def receive(self, count: int) -> list[Delivery]:
        """Waits until so many deliveries have arrived in all; returns them."""
        await until(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def sign(self) -> AckAnswer:
        return await self.broker.ack(Ack(self.opened.session_id, (), self.sequence))

    async def ack(self, *handles: Handle, outcome: Outcome | None = None, at: Broker | None = None) -> list[AckResult]:
        """Settles deliveries, completed by default, at the stream's replica or at another."""
        items = tuple(AckItem(handle, outcome or Complete(None)) for handle in handles)
        return (await (at or self.broker).ack(Ack(self.opened.session_id, items, self.sequence))).results

    def resume(self, *held: Handle, epoch: int = 0, credits: int | None = None, at: Broker | None = None) -> Worker:
        """A stream that goes on with this session."""
        terms = replace(
            self.terms,
            resume=Resume(self.opened.session_id, epoch, held),
            max_in_flight=credits or self.terms.max_in_flight,
        )
        return Worker(at or self.broker, terms)

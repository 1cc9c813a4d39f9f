"""A worker at the level of the wire: one Subscribe call that is read to its end, and the Acks that belong to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc.aio

from jobwire.v1.queue_service_pb2 import (
    AckItem,
    AckRequest,
    AckResponse,
    AckResult,
    Complete,
    Delivery,
    JobSpec,
    PublishRequest,
    SessionOpened,
    SubscribeRequest,
    SubscribeResponse,
)

from .conftest import Api


async def publish(api: Api, count: int = 1, queue: str = "work", **spec: object) -> list[str]:
    """Publishes `count` jobs and returns their ids."""
    jobs = [JobSpec(**{"data": f'{{"n":{n}}}', **spec}) for n in range(count)]
    answer = await api.queue.Publish(PublishRequest(queue=queue, jobs=jobs))
    assert all(result.created for result in answer.results)
    return [result.job_id for result in answer.results]


class Worker:
    """Begins to read at once; as a context manager, leaves at its end."""

    def __init__(self, api: Api, *queues: str, answers_heartbeats: bool = True, **said: Any) -> None:
        self.api = api
        self.call: Any = api.queue.Subscribe(SubscribeRequest(queues=queues or ("work",), worker="tester", **said))
        self.messages: list[SubscribeResponse] = []
        self.error: grpc.aio.AioRpcError | None = None
        self._answers_heartbeats = answers_heartbeats
        self.ended = False
        """Whether the stream has ended, in order or with `error`."""
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def __aenter__(self) -> Self:
        await self.until(lambda: self.messages or self.ended)
        if self.error is not None:
            raise self.error
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await asyncio.wait([self._reader])

    @property
    def opened(self) -> SessionOpened:
        return self.messages[0].opened

    @property
    def session_id(self) -> str:
        return self.opened.session_id

    @property
    def deliveries(self) -> list[Delivery]:
        """All that were received, in order."""
        return [delivery for message in self.messages for delivery in message.deliveries.deliveries]

    def events(self, kind: str) -> list[SubscribeResponse]:
        """The messages of one kind, such as `heartbeat`."""
        return [message for message in self.messages if message.WhichOneof("event") == kind]

    async def until(self, condition: Callable[[], object]) -> None:
        """Returns when what was received, or the stream's end, makes the condition hold."""
        async with asyncio.timeout(30):
            while not condition():
                assert not self.ended, f"the stream ended before: {self.error}"
                self._changed.clear()
                await self._changed.wait()

    async def receive(self, count: int) -> Sequence[Delivery]:
        """Waits until so many deliveries have arrived in all."""
        await self.until(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def finish(self) -> None:
        """Waits for the end of the stream."""
        await self.until(lambda: self.ended)

    async def report(self, *items: AckItem, **said: object) -> AckResponse:
        """An Ack call that names the session and the last event."""
        sequence = self.messages[-1].sequence
        return await self.api.queue.Ack(
            AckRequest(session_id=self.session_id, last_sequence=sequence, items=items, **said)
        )

    async def ack(self, *items: AckItem) -> Sequence[AckResult]:
        """Reports on deliveries; a result for each."""
        return (await self.report(*items)).results

    async def complete(self, *deliveries: Delivery) -> list[int]:
        """Completes deliveries; a status for each."""
        items = [AckItem(handle=delivery.handle, complete=Complete()) for delivery in deliveries]
        return [result.status for result in await self.ack(*items)]

    async def _read(self) -> None:
        try:
            async for message in self.call:
                self.messages.append(message)
                self._changed.set()
                if message.HasField("heartbeat") and self._answers_heartbeats:
                    await self.report()
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            if not self.call.cancelled():
                raise
        finally:
            self.ended = True
            self._changed.set()

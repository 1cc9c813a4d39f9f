"""A worker of the suite's own, beside that of the driver."""

from __future__ import annotations

from typing import Self

from jobwire import Job, Worker


class AnotherWorker:
    """Completes with one output whatever it gets."""

    def __init__(self, target: str, queue: str, output: object = None) -> None:
        self._worker = Worker(target, name="another worker")

        @self._worker.handler(queue, concurrency=10)
        async def complete(_: Job) -> object:
            return output

    async def __aenter__(self) -> Self:
        await self._worker.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._worker.stop(now=True)
        await self._worker.__aexit__(None, None, None)

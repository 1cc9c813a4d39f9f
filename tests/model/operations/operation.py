"""One step: what is done to the store, and what the model says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tests.model.model import Model
from tests.model.stage import Stage


class Operation(Protocol):
    """`do` does it for real, `expect` to the model; both return the answer, in the same words."""

    async def do(self, stage: Stage) -> Any: ...

    def expect(self, model: Model) -> Any: ...


def outcomes(operation: Operation, model: Model) -> Iterator[tuple[Any, Model]]:
    """The answers that are right, each with what has to be there then."""
    if isinstance(operation, Race):
        first, second = operation.first, operation.second
        other = model.copy()
        yield (first.expect(model), second.expect(model)), model
        late = second.expect(other)
        yield (first.expect(other), late), other
    else:
        yield operation.expect(model), model


@dataclass(frozen=True)
class Race:
    """Two operations at once. They have to end as if one had come after the other."""

    first: Operation
    second: Operation

    async def do(self, stage: Stage) -> Any:
        return tuple(await asyncio.gather(self.first.do(stage), self.second.do(stage)))

    def expect(self, model: Model) -> Any:
        raise NotImplementedError  # there are two answers: see `outcomes`

    def __str__(self) -> str:
        return f"at once: {self.first} | {self.second}"

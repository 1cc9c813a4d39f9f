"""A play on the stage: each operation is done for real and to the model, and then both are compared."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.transitions import Row

from .model import Model
from .names import made
from .operations.operation import Operation, outcomes
from .stage import Stage, replica_id


class Disagreement(AssertionError):
    """The store did something else than the model."""


class Theatre:
    """The stage with the loop it lives in, for plays one after the other. `steps` counts what was done and compared."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stage: Stage) -> None:
        self.loop = loop
        self.stage = stage
        self.steps = 0
        self.walked: Counter[Row] = Counter()
        """How often each row of the table of transitions was taken."""
        self.disagreement: str | None = None
        """The shortest there was."""

    @classmethod
    @contextmanager
    def opened(cls, dsn: str, schema: str) -> Iterator[Theatre]:
        """A theatre with a schema and a loop of its own: the steps of a play are no coroutines."""
        with asyncio.Runner() as runner:
            ready = Stage.ready(dsn, schema)
            stage = runner.run(ready.__aenter__())
            try:
                yield cls(runner.get_loop(), stage)
            finally:
                runner.run(ready.__aexit__(None, None, None))


class Play:
    """One run of operations from an empty store on."""

    def __init__(self, theatre: Theatre) -> None:
        self.theatre = theatre
        self.model = Model(walked=theatre.walked)
        self.replicas = [replica_id(1), replica_id(2)]
        self.handles: dict[Handle, None] = {}
        """All deliveries that ever were."""
        self.history: list[str] = []
        self._numbers = {kind: itertools.count(1) for kind in "jsc"} | {"r": itertools.count(3)}
        theatre.loop.run_until_complete(theatre.stage.clear())

    def fresh(self, kind: str) -> UUID:
        """An id that was not used before in this play."""
        return made(kind, next(self._numbers[kind]))

    def act(self, operation: Operation) -> None:
        """Does it, and compares the answers and what is there then."""
        try:
            answer, found = self.theatre.loop.run_until_complete(self._do(operation))
        except Exception as error:
            self.history.append(f"{operation} -> {error!r}")
            self._disagree(f"{operation}: {error!r}\n{self._story()}")
        right = None
        for expected, model in outcomes(operation, self.model):
            right = right or (expected, model)
            if expected == answer and model.shown() == found:
                self._go_on(operation, answer, model)
                return
        assert right is not None
        self.history.append(f"{operation} -> {answer}")
        self._disagree(self._told(operation, answer, found, *right))

    async def _do(self, operation: Operation) -> tuple[Any, dict[str, Any]]:
        answer = await operation.do(self.theatre.stage)
        return answer, await self.theatre.stage.look()

    def _go_on(self, operation: Operation, answer: Any, model: Model) -> None:
        self.model = model
        self.handles |= {job.lease: None for job in model.leases() if job.lease is not None}
        self.history.append(f"{operation} -> {answer}")
        self.theatre.steps += 1

    def end(self) -> None:
        """Every job has one outcome, as it was recorded when it finished."""
        ids = {each.id for each in self.model.finished}
        found = self.theatre.loop.run_until_complete(self.theatre.stage.outcomes(list(ids)))
        expected = sorted(each.shown() for each in self.model.finished)
        if sorted(found) != expected:
            self._disagree(self._lines("outcomes", sorted(found), expected) + self._story())

    def _disagree(self, told: str) -> NoReturn:
        if self.theatre.disagreement is None or len(told) < len(self.theatre.disagreement):
            self.theatre.disagreement = told
        raise Disagreement(told)

    def _told(self, operation: Operation, answer: Any, found: Any, expected: Any, model: Model) -> str:
        parts = [f"after: {operation}\n"]
        if answer != expected:
            parts.append(f"answered {answer}\nexpected {expected}\n")
        shown = model.shown()
        parts += [self._lines(what, found[what], shown[what]) for what in found if found[what] != shown[what]]
        return "".join(parts) + self._story()

    @staticmethod
    def _lines(what: str, found: Any, expected: Any) -> str:
        if not isinstance(found, list):
            return f"{what}: found {found}, expected {expected}\n"
        more, less = [x for x in found if x not in expected], [x for x in expected if x not in found]
        if not more and not less:
            return f"{what}: found in the order {found}\nexpected {expected}\n"
        return "".join([f"{what}: found    {x}\n" for x in more] + [f"{what}: expected {x}\n" for x in less])

    def _story(self) -> str:
        """What was done, what was repeated at once and to the same effect in one line."""
        lines = [(line, len(list(same))) for line, same in itertools.groupby(self.history)]
        return "history:\n" + "".join(f"  {line}{f' (x {count})' if count > 1 else ''}\n" for line, count in lines)

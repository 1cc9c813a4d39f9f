"""Group commit: what waits goes together, in order, and whatever becomes of one call is its own affair."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwire_server.broker.group_commit import GroupCommit
from jobwire_server.domain.errors import DatabaseUnavailable


class Statements:
    """Stands for the database: runs groups when it is let, and fails as it is told."""

    def __init__(self, most: int = 100) -> None:
        self.groups: list[list[int]] = []
        self.errors: dict[int, Exception] = {}
        """By which call makes a group fail."""
        self.open = asyncio.Event()
        self.open.set()
        self.most = most
        self.line: GroupCommit[int, str] = GroupCommit(self._run, self._fits)

    async def _run(self, group: Sequence[int]) -> Sequence[str]:
        self.groups.append(list(group))
        await self.open.wait()
        for call in group:
            if call in self.errors:
                raise self.errors[call]
        return [f"answer {call}" for call in group]

    def _fits(self, group: Sequence[int], call: int) -> bool:
        return len(group) < self.most

    async def submit_while_busy(self, *calls: int) -> list[asyncio.Task[str]]:
        """Has call 0 under way, and the others waiting behind it; `open` lets all go on."""
        self.open.clear()
        first = asyncio.create_task(self.line.submit(0))
        await until(lambda: self.groups == [[0]])
        waiting = [asyncio.create_task(self.line.submit(call)) for call in calls]
        await asyncio.sleep(0)
        return [first, *waiting]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_an_idle_line_waits_for_nobody() -> None:
    statements = Statements()
    assert statements.line.idle
    assert await statements.line.submit(1) == "answer 1"
    assert await statements.line.submit(2) == "answer 2"
    assert statements.groups == [[1], [2]]
    assert statements.line.idle


async def test_what_arrives_while_a_group_is_under_way_goes_together_in_order() -> None:
    statements = Statements()
    tasks = await statements.submit_while_busy(1, 2, 3)
    assert not statements.line.idle
    statements.open.set()
    assert await asyncio.gather(*tasks) == ["answer 0", "answer 1", "answer 2", "answer 3"]
    assert statements.groups == [[0], [1, 2, 3]]


async def test_what_does_not_fit_begins_the_next_group() -> None:
    statements = Statements(most=2)
    tasks = await statements.submit_while_busy(1, 2, 3, 4, 5)
    statements.open.set()
    assert await asyncio.gather(*tasks) == [f"answer {call}" for call in range(6)]
    assert statements.groups == [[0], [1, 2], [3, 4], [5]]


async def test_a_call_that_fits_nowhere_still_runs_alone() -> None:
    statements = Statements(most=0)
    tasks = await statements.submit_while_busy(1, 2)
    statements.open.set()
    await asyncio.gather(*tasks)
    assert statements.groups == [[0], [1], [2]]


async def test_fate_is_not_shared() -> None:
    statements = Statements()
    statements.errors[2] = ValueError("mine")
    tasks = await statements.submit_while_busy(1, 2, 3)
    statements.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers == ["answer 0", "answer 1", statements.errors[2], "answer 3"]
    assert statements.groups == [[0], [1, 2, 3], [1], [2], [3]]
    assert await statements.line.submit(4) == "answer 4"


async def test_a_lost_database_is_told_to_all_at_once() -> None:
    """To try each call alone would make all of them wait for the same."""
    statements = Statements()
    statements.errors[2] = DatabaseUnavailable()
    tasks = await statements.submit_while_busy(1, 2, 3)
    statements.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers == ["answer 0", *[statements.errors[2]] * 3]
    assert statements.groups == [[0], [1, 2, 3]]
    del statements.errors[2]
    assert await statements.line.submit(2) == "answer 2"


@pytest.mark.parametrize("error", [None, ValueError()], ids=["works", "fails"])
@pytest.mark.parametrize("leaver", [0, 1, 2], ids=["under way", "first in line", "last in line"])
async def test_a_caller_that_leaves_harms_no_other(leaver: int, error: Exception | None) -> None:
    statements = Statements()
    if error is not None:
        statements.errors[leaver] = error
    tasks = await statements.submit_while_busy(1, 2)
    tasks[leaver].cancel()
    await asyncio.wait([tasks[leaver]])
    statements.open.set()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers.pop(leaver), asyncio.CancelledError)
    assert answers == [f"answer {call}" for call in range(3) if call != leaver]
    # What the one that left had asked for still runs: it may have been under way when it left.
    assert statements.groups[:2] == [[0], [1, 2]]
    await until(lambda: statements.line.idle)


async def test_calls_that_come_from_an_answer_are_served() -> None:
    """The line's end and a new call at the same moment: none is left behind."""
    statements = Statements()

    async def talk(first: int) -> str:
        for call in range(first, first + 20):
            assert await statements.line.submit(call) == f"answer {call}"
        return "done"

    async with asyncio.timeout(10):
        assert await asyncio.gather(*(talk(100 * n) for n in range(5))) == ["done"] * 5
    await until(lambda: statements.line.idle)


@given(
    most=st.integers(1, 5),
    calls=st.lists(st.integers(0, 30), unique=True, max_size=20),
    failing=st.frozensets(st.integers(0, 30)),
    pauses=st.lists(st.integers(0, 2), min_size=20, max_size=20),
)
async def test_each_call_runs_once_for_each_outcome_and_in_order(
    most: int, calls: list[int], failing: frozenset[int], pauses: list[int]
) -> None:
    statements = Statements(most)
    statements.errors = {call: ValueError(call) for call in failing}
    tasks = []
    for call, pause in zip(calls, pauses, strict=False):
        tasks.append(asyncio.create_task(statements.line.submit(call)))
        for _ in range(pause):
            await asyncio.sleep(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for call, answer in zip(calls, answers, strict=True):
        assert answer == statements.errors.get(call, f"answer {call}")
    # Leaving out the repetitions one by one of groups that failed, the order is that of the calls.
    firsts = list(dict.fromkeys(call for group in statements.groups for call in group))
    assert firsts == calls
    assert all(len(group) <= most for group in statements.groups)
    for call in set(calls) - failing:
        assert sum(call in group and not failing & set(group) for group in statements.groups) == 1
    await until(lambda: statements.line.idle)


async def test_who_comes_again_at_once_joins_those_who_wait() -> None:
    """Or else two halves of the callers would take turns for ever, with a commit for each."""
    statements = Statements()

    async def caller(call: int) -> None:
        for again in range(3):
            await statements.line.submit(call + 10 * again)

    [first, *_] = callers = [asyncio.create_task(caller(0))]
    statements.open.clear()
    await until(lambda: statements.groups == [[0]])
    callers += [asyncio.create_task(caller(call)) for call in (1, 2)]
    await asyncio.sleep(0.02)
    statements.open.set()
    await asyncio.gather(*callers)
    assert statements.groups[1] == [1, 2, 10]
    assert first.done() and statements.line.idle


async def test_what_fills_a_group_waits_for_nobody() -> None:
    statements = Statements(most=1)
    calls = await statements.submit_while_busy(1, 2)
    await asyncio.sleep(0.02)
    gathered: list[int] = []

    async def gather(expected: int, _: float) -> None:
        gathered.append(expected)

    statements.line._gather = gather  # type: ignore[method-assign]
    statements.open.set()
    await asyncio.gather(*calls)
    # Only the last one, alone, had room beside it.
    assert gathered == [2] and statements.groups == [[0], [1], [2]]

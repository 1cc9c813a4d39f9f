"""The floor of a lane: which parts of the claim order a claim still reads."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from jobwire_server.broker.dispatcher import _Floor
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Delivery
from jobwire_server.domain.shares import Ranks
from jobwire_server.store.claiming import Claimed, Span, within

NOBODY = UUID(int=0)
keys = st.tuples(st.integers(-3, 3), st.integers(1, 30))


def taken(rank: int, seq: int) -> Claimed:
    delivery = Delivery(Handle("q", NOBODY, NOBODY, 1), "1", None, -rank, 1, 0, 2, None, 1)  # type: ignore[arg-type]
    return Claimed(rank, seq, delivery)


def reads(spans: list[Span], key: tuple[int, int]) -> list[Span]:
    return [span for span in spans if key > (span.from_rank, span.from_seq) and key[0] < span.to_rank]


@given(st.lists(keys))
def test_what_lies_above_each_floor_is_read_once_and_what_lies_below_is_not(claimed: list[tuple[int, int]]) -> None:
    floor = _Floor()
    floor.raise_to(taken(*key) for key in claimed)
    spans = list(floor.spans())
    highest = {rank: max(seq for r, seq in claimed if r == rank) for rank, _ in claimed}
    for rank in range(-4, 5):
        for seq in range(1, 32):
            above = seq > highest.get(rank, 0)
            assert len(reads(spans, (rank, seq))) == above
    assert [(span.from_rank, span.from_seq) for span in spans] == sorted(
        (span.from_rank, span.from_seq) for span in spans
    )


@given(st.lists(keys), st.integers(-4, 4), st.integers(0, 8))
def test_a_part_of_the_order_is_read_as_the_whole_is(claimed: list[tuple[int, int]], low: int, width: int) -> None:
    floor, ranks = _Floor(), Ranks(low, low + width)
    floor.raise_to(taken(*key) for key in claimed)
    spans = list(floor.spans())
    part = list(within(spans, ranks))
    for rank in range(-5, 6):
        for seq in range(1, 32):
            inside = ranks.low <= rank <= ranks.high
            assert len(reads(part, (rank, seq))) == (len(reads(spans, (rank, seq))) if inside else 0)
    assert [(span.from_rank, span.from_seq) for span in part] == sorted(
        (span.from_rank, span.from_seq) for span in part
    )
    assert part or not spans


def test_it_forgets_all_when_reset_and_when_there_are_too_many_ranks() -> None:
    floor = _Floor()
    floor.raise_to([taken(0, 5)])
    floor.reset()
    assert list(floor.spans()) == [Span()]
    floor.raise_to(taken(rank, 1) for rank in range(9))
    assert list(floor.spans()) == [Span()]

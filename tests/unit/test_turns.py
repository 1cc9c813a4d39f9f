"""Turns of queues: in proportion to weights, nobody waits for ever, nobody is owed for what it did not want."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jobwire_server.broker.turns import Turns

weights_of = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 100), min_size=1)


def deal(turns: Turns, queues: list[str], rounds: int, free: int = 1) -> Counter[str]:
    """Deals `free` credits out in each round, asked for in the order given."""
    got: Counter[str] = Counter()
    for _ in range(rounds):
        left = free
        for queue in queues:
            part = turns.part(queue, queues, left) if left else 0
            turns.charge(queue, part)
            got[queue] += part
            left -= part
        assert left == 0
    return got


@given(weights_of, st.integers(1, 50), st.integers(1, 100), st.randoms())
def test_each_gets_its_part_within_a_job(weights: dict[str, int], free: int, rounds: int, random: object) -> None:
    queues = list(weights)
    random.shuffle(queues)  # type: ignore[attr-defined]
    got = deal(Turns(weights), queues, rounds, free)
    for queue, weight in weights.items():
        ideal = rounds * free * weight / sum(weights.values())
        # Ahead by less than a job; so behind by no more than all the others are ahead.
        assert ideal - len(queues) < got[queue] < ideal + 1


def test_the_lightest_has_its_turn() -> None:
    got = deal(Turns({"heavy": 100, "light": 1}), ["heavy", "light"], 1_010)
    assert got == {"heavy": 1_000, "light": 10}


def test_who_has_nothing_holds_up_nobody() -> None:
    turns = Turns({"heavy": 100, "light": 1})
    assert turns.part("light", ["light"], 10) == 10


def test_who_comes_late_gets_its_part_from_then_on() -> None:
    turns = Turns({"early": 1, "late": 1})
    deal(turns, ["early"], 1_000)
    assert deal(turns, ["early", "late"], 10) == {"early": 5, "late": 5}
    # And who was alone pays nothing for it later.
    deal(turns, ["late"], 1_000)
    assert deal(turns, ["late", "early"], 10) == {"early": 5, "late": 5}


def test_what_was_not_taken_is_given_back() -> None:
    turns = Turns({"a": 1, "b": 1})
    assert turns.part("a", ["a", "b"], 10) == 5
    turns.charge("a", 5)
    assert turns.part("b", ["a", "b"], 5) == 5
    turns.charge("a", -5)
    assert turns.part("b", ["a", "b"], 10) == 5

"""What is to be done for a schedule whose time has come, by the rule for what was missed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobwire_server.domain.cron import Cron
from jobwire_server.domain.jobs import NewJob
from jobwire_server.domain.schedules import Every, MissedRuns, Once, Plan, ScheduleSpec, Timing, after, plan

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOURLY = Cron("0 * * * *", "UTC")
SKIP, ONCE, ALL = MissedRuns


def at(hour: int, minute: int = 0) -> datetime:
    return NOON.replace(hour=hour, minute=minute)


def spec(timing: Timing, missed: MissedRuns = SKIP, limit: int = 100, tolerance_ms: int = 60_000) -> ScheduleSpec:
    return ScheduleSpec("s", "q", NewJob(UUID(int=0), "1"), timing, missed, limit, tolerance_ms)


@pytest.mark.parametrize(
    ("missed", "limit", "due", "now", "runs", "follows"),
    [
        # On time, or late within the tolerance.
        (SKIP, 100, at(12), at(12), [12], at(13)),
        (SKIP, 100, at(12), at(12) + timedelta(seconds=60), [12], at(13)),
        (ONCE, 100, at(12), at(12) + timedelta(seconds=60), [12], at(13)),
        # Missed.
        (SKIP, 100, at(12), at(12, 2), [], at(13)),
        (SKIP, 100, at(9), at(12, 2), [], at(13)),
        (ONCE, 100, at(9), at(12, 2), [12], at(13)),
        (ALL, 100, at(9), at(12, 2), [9, 10, 11, 12], at(13)),
        (ALL, 2, at(9), at(12, 2), [11, 12], at(13)),
        (ALL, 1, at(12), at(12, 2), [12], at(13)),
        # Missed, and one on time.
        (SKIP, 100, at(9), at(12), [12], at(13)),
        (ONCE, 100, at(9), at(12), [12], at(13)),
        (ALL, 100, at(9), at(12), [9, 10, 11, 12], at(13)),
        (ALL, 1, at(9), at(12), [11, 12], at(13)),
    ],
)
def test_an_hourly_schedule(
    missed: MissedRuns, limit: int, due: datetime, now: datetime, runs: list[int], follows: datetime
) -> None:
    assert plan(spec(HOURLY, missed, limit), due, now, 100) == Plan(tuple(map(at, runs)), follows)


def test_what_does_not_go_into_one_step_follows_in_the_next() -> None:
    first = plan(spec(HOURLY, ALL), at(3), at(12, 30), 4)
    assert first == Plan((at(3), at(4), at(5), at(6)), at(7))
    assert plan(spec(HOURLY, ALL), at(7), at(12, 30), 4) == Plan((at(7), at(8), at(9), at(10)), at(11))


def test_every_second_within_the_tolerance() -> None:
    secondly = spec(Cron("* * * * * *", "UTC"))
    made = plan(secondly, NOON, NOON + timedelta(seconds=5.5), 100)
    assert made == Plan(tuple(NOON + timedelta(seconds=n) for n in range(6)), NOON + timedelta(seconds=6))


@pytest.mark.parametrize(("missed", "runs"), [(SKIP, ()), (ONCE, (at(3),)), (ALL, (at(3),))])
def test_a_one_off_that_was_missed(missed: MissedRuns, runs: tuple[datetime, ...]) -> None:
    assert plan(spec(Once(at(3)), missed), at(3), NOON, 100) == Plan(runs, None)


def test_an_interval_keeps_its_beat() -> None:
    beat = Every(90_000, NOON)
    assert after(beat, NOON) == NOON + timedelta(seconds=90)
    assert after(beat, NOON + timedelta(seconds=90)) == NOON + timedelta(seconds=180)
    assert after(beat, NOON + timedelta(seconds=179.999_999)) == NOON + timedelta(seconds=180)
    assert after(beat, NOON - timedelta(days=3)) == NOON + timedelta(seconds=90)


def test_a_due_time_that_the_timing_does_not_know_any_more_is_passed_over() -> None:
    """As when a country changes its clocks: what was worked out before does not hold up what comes."""
    assert plan(spec(HOURLY), at(12, 10), at(12, 10), 100) == Plan((), at(13))


def test_years_of_seconds_are_not_walked_through() -> None:
    due = NOON - timedelta(days=20 * 365)
    began = time.process_time()
    made = plan(spec(Cron("* * * * * *", "Europe/Berlin"), ALL, 1_000), due, NOON, 2_000)
    assert len(made.runs) == 1_000 + 60 + 1 and made.runs[-1] == NOON
    # Through all of them it would take hours.
    assert time.process_time() - began < 30


TIMINGS: list[Timing] = [
    HOURLY,
    Cron("*/7 * * * *", "Europe/Berlin"),
    Cron("30 2 * * *", "America/New_York"),
    Cron("15 10 1,15 * MON", "Asia/Shanghai"),
    Every(50 * 60_000, NOON),
]


@settings(max_examples=200, deadline=None, database=None)
@given(
    timing=st.sampled_from(TIMINGS),
    missed=st.sampled_from(MissedRuns),
    limit=st.integers(1, 20),
    start=st.integers(0, 400 * 24 * 60),
    steps=st.lists(st.integers(0, 3 * 24 * 60), min_size=1, max_size=12),
    most=st.integers(1, 5),
)
def test_whatever_happens_each_due_time_has_one_turn_at_most_and_those_on_time_have_it(
    timing: Timing, missed: MissedRuns, limit: int, start: int, steps: list[int], most: int
) -> None:
    """A replica that looks now and then, with pauses of any length."""
    now = NOON + timedelta(minutes=start)
    due = after(timing, now)
    runs: list[datetime] = []
    looked = []
    for step in steps:
        now += timedelta(minutes=step)
        looked.append(now)
        while due is not None and due <= now:
            made = plan(spec(timing, missed, limit), due, now, most)
            assert len(made.runs) <= most and all(due <= run <= now for run in made.runs)
            assert made.next is not None and made.next > (made.runs[-1] if made.runs else now)
            runs += made.runs
            due = made.next
    assert runs == sorted(set(runs))
    first = after(timing, NOON + timedelta(minutes=start))
    past = []
    while first is not None and first <= now:
        past.append(first)
        first = after(timing, first)
    assert set(runs) <= set(past)
    on_time = {due for due in past for look in looked if timedelta(0) <= look - due <= timedelta(minutes=1)}
    assert on_time <= set(runs)
    if missed is MissedRuns.ALL and limit > len(past):
        assert runs == past

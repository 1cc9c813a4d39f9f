"""When a cron line is due, above all where clocks are put forward and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobwire_server.domain.cron import Cron, check_cron, time_zones
from jobwire_server.domain.errors import InvalidArgument

BERLIN = "Europe/Berlin"
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def walked(line: str, zone: str, after: str, count: int) -> list[str]:
    """The first due times, as clocks of the zone show them, with their offset."""
    instants = islice(check_cron(line, zone, "cron").walk(utc(after)), count)
    return [instant.astimezone(ZoneInfo(zone)).isoformat(" ") for instant in instants]


# In Berlin the clocks go from 2:00 to 3:00 on 29 March 2026, and from 3:00 back to 2:00 on 25 October 2026.
SPRING, AUTUMN = "2026-03-28T12:00", "2026-10-24T12:00"
CHANGES = {
    "spring, the time does not exist": (
        "30 2 * * *",
        SPRING,
        ["2026-03-29 03:00:00+02:00", "2026-03-30 02:30:00+02:00"],
    ),
    "spring, several do not exist": (
        "15,45 2 * * *",
        SPRING,
        ["2026-03-29 03:00:00+02:00", "2026-03-30 02:15:00+02:00"],
    ),
    "spring, one leapt over, one at the leap": (
        "0 2,3 * * *",
        SPRING,
        ["2026-03-29 03:00:00+02:00", "2026-03-30 02:00:00+02:00"],
    ),
    "spring, with seconds": (
        "10 30 2 * * *",
        SPRING,
        ["2026-03-29 03:00:00+02:00", "2026-03-30 02:30:10+02:00"],
    ),
    "spring, every half hour": (
        "*/30 * * * *",
        "2026-03-29T00:15",
        ["2026-03-29 01:30:00+01:00", "2026-03-29 03:00:00+02:00", "2026-03-29 03:30:00+02:00"],
    ),
    "spring, minutes of an hour that does not exist": (
        "*/30 2 * * *",
        SPRING,
        ["2026-03-30 02:00:00+02:00", "2026-03-30 02:30:00+02:00"],
    ),
    "autumn, the time occurs twice": (
        "30 2 * * *",
        AUTUMN,
        ["2026-10-25 02:30:00+02:00", "2026-10-26 02:30:00+01:00"],
    ),
    "autumn, asked between the two": (
        "30 2 * * *",
        "2026-10-25T00:45",
        ["2026-10-26 02:30:00+01:00"],
    ),
    "autumn, with seconds": (
        "0 30 2 * * *",
        AUTUMN,
        ["2026-10-25 02:30:00+02:00", "2026-10-26 02:30:00+01:00"],
    ),
    "autumn, after both": (
        "0 3 * * *",
        AUTUMN,
        ["2026-10-25 03:00:00+01:00", "2026-10-26 03:00:00+01:00"],
    ),
    "autumn, every hour": (
        "30 * * * *",
        "2026-10-24T23:45",
        ["2026-10-25 02:30:00+02:00", "2026-10-25 02:30:00+01:00", "2026-10-25 03:30:00+01:00"],
    ),
    "autumn, from the hour's first minute on": (
        "0 * * * *",
        "2026-10-24T23:30",
        ["2026-10-25 02:00:00+02:00", "2026-10-25 02:00:00+01:00", "2026-10-25 03:00:00+01:00"],
    ),
}


@pytest.mark.parametrize(("line", "after", "expected"), CHANGES.values(), ids=CHANGES)
def test_where_the_clocks_are_changed(line: str, after: str, expected: list[str]) -> None:
    assert walked(line, BERLIN, after, len(expected)) == expected


def test_a_zone_whose_clocks_are_changed_by_half_an_hour() -> None:
    zone = "Australia/Lord_Howe"
    assert walked("15 2 * * *", zone, "2026-10-03T00:00", 2) == [
        "2026-10-04 02:30:00+11:00",
        "2026-10-05 02:15:00+11:00",
    ]
    assert walked("*/20 * * * *", zone, "2026-10-03T15:05", 3) == [
        "2026-10-04 01:40:00+10:30",
        "2026-10-04 02:40:00+11:00",
        "2026-10-04 03:00:00+11:00",
    ]
    assert walked("*/20 * * * *", zone, "2026-04-04T14:25", 4) == [
        "2026-04-05 01:40:00+11:00",
        "2026-04-05 01:40:00+10:30",
        "2026-04-05 02:00:00+10:30",
        "2026-04-05 02:20:00+10:30",
    ]


FOLLOWING: dict[str, Callable[[datetime], bool]] = {
    "30 * * * *": lambda wall: wall.minute == 30,
    "*/7 2 * * *": lambda wall: wall.hour == 2 and wall.minute % 7 == 0,
    "5,35 */2 * * *": lambda wall: wall.hour % 2 == 0 and wall.minute in (5, 35),
    "*/20 1-3 * * 0": lambda wall: wall.weekday() == 6 and 1 <= wall.hour <= 3 and wall.minute % 20 == 0,
}
NAMED: dict[str, Callable[[datetime], bool]] = {
    "30 0,1,2,3 * * *": lambda wall: wall.minute == 30 and wall.hour < 4,
    "10-12 2 * * *": lambda wall: wall.hour == 2 and wall.minute in (10, 11, 12),
    "0 0-23 * * *": lambda wall: wall.minute == 0,
}


def changes(zone: ZoneInfo) -> list[datetime]:
    """The hours of 2026 and 2027 in which its clocks are changed."""

    def differ(moment: datetime, span: timedelta) -> bool:
        return moment.astimezone(zone).utcoffset() != (moment + span).astimezone(zone).utcoffset()

    days = [utc("2026-01-01") + timedelta(days=n) for n in range(2 * 365)]
    hours = [day + timedelta(hours=n) for day in days if differ(day, timedelta(days=1)) for n in range(24)]
    return [hour + timedelta(hours=1) for hour in hours if differ(hour, timedelta(hours=1))]


def all_changes() -> dict[object, tuple[str, datetime]]:
    """One example, as zone and hour, of each way in which clocks are changed anywhere."""
    found: dict[object, tuple[str, datetime]] = {}
    for name in sorted(time_zones()):
        zone = ZoneInfo(name)
        for change in changes(zone):
            before, after = ((change + n * MINUTE).astimezone(zone) for n in (-60, 60))
            found.setdefault(
                (before.time(), before.isoweekday(), before.utcoffset(), after.utcoffset()), (name, change)
            )
    return found


@pytest.mark.timeout(600)
def test_all_zones_against_a_look_at_every_minute() -> None:
    """What is due is found by asking at each minute what a clock shows."""
    examples = all_changes().values()
    assert len(examples) > 20
    for name, change in examples:
        zone = ZoneInfo(name)
        start = change - timedelta(hours=5)
        minutes = [start + n * MINUTE for n in range(600)]
        walls = [minute.astimezone(zone).replace(tzinfo=None, fold=0) for minute in minutes]
        for line, matches in FOLLOWING.items():
            expected = [minute for minute, wall in zip(minutes, walls, strict=True) if matches(wall)]
            assert due(line, name, start, minutes[-1]) == expected, (name, line, change)
        for line, matches in NAMED.items():
            expected = []
            shown: set[datetime] = set()
            for before, wall, minute in zip([walls[0] - MINUTE, *walls], walls, minutes, strict=False):
                leapt = [before + n * MINUTE for n in range(1, int((wall - before) / MINUTE))]
                if (matches(wall) and wall not in shown) or any(map(matches, leapt)):
                    expected.append(minute)
                shown.add(wall)
            assert due(line, name, start, minutes[-1]) == expected, (name, line, change)


def due(line: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    return list(takewhile(lambda instant: instant <= end, Cron(line, zone).walk(start - timedelta(microseconds=1))))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0 29 2 *", ["2028-02-29 00:00:00+00:00", "2032-02-29 00:00:00+00:00"]),
        ("0 12 L * *", ["2026-11-30 12:00:00+00:00", "2026-12-31 12:00:00+00:00"]),
        ("0 8 * * MON#1", ["2026-12-07 08:00:00+00:00", "2027-01-04 08:00:00+00:00"]),
        ("*/20 * * * * *", ["2026-11-22 00:00:20+00:00", "2026-11-22 00:00:40+00:00"]),
        # As in Vixie's cron: where both days are named, either will do.
        ("0 0 1 * mon", ["2026-11-23 00:00:00+00:00", "2026-11-30 00:00:00+00:00", "2026-12-01 00:00:00+00:00"]),
    ],
)
def test_lines(line: str, expected: list[str]) -> None:
    assert walked(line, "UTC", "2026-11-22T00:00", len(expected)) == expected


@pytest.mark.parametrize(
    ("line", "zone", "field", "words"),
    [
        ("0 0 30 2 *", "UTC", "cron.line", "no such day is in these months"),
        ("0 0 31 4,6,9,11 *", "UTC", "cron.line", "no such day is in these months"),
        ("0 0 */30 2 1#5", "UTC", "cron.line", "never due within fifty years"),
        ("", "UTC", "cron.line", "wrong number of fields"),
        ("@daily", "UTC", "cron.line", "five fields"),
        ("60 * * * *", "UTC", "cron.line", "bad minute"),
        ("* 24 * * *", "UTC", "cron.line", "bad hour"),
        ("*/0 * * * *", "UTC", "cron.line", "bad minute"),
        ("a b c d e", "UTC", "cron.line", "bad minute"),
        ("1," * 100 + "1 * * * *", "UTC", "cron.line", "at most 200 characters"),
        ("0 3 * * *", "Mars/Olympus", "cron.time_zone", "Europe/Berlin; got 'Mars/Olympus'"),
        ("0 3 * * *", "../../etc/passwd", "cron.time_zone", "IANA"),
        ("0 3 * * *", "localtime", "cron.time_zone", "IANA"),
        ("0 3 * * *", "europe/berlin", "cron.time_zone", "IANA"),
    ],
)
def test_what_is_refused(line: str, zone: str, field: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_cron(line, zone, "cron")
    [violation] = caught.value.violations
    assert violation.field == field and words in violation.rule


def test_no_zone_means_utc() -> None:
    assert check_cron("  0  3 * * * ", "", "cron") == Cron("0 3 * * *", "UTC")


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(st.text("0123456789*/,-#LWMONJA?", min_size=1, max_size=6), min_size=4, max_size=7).map(" ".join))
def test_any_line_is_taken_or_refused(line: str) -> None:
    try:
        cron = check_cron(line, BERLIN, "cron")
    except InvalidArgument:
        return
    instants = list(islice(cron.walk(utc("2026-03-28T12:00")), 50))
    assert instants and sorted(set(instants)) == instants

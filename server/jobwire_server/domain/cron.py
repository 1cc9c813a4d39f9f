"""When a cron line is due, by the clocks of a time zone that are put forward and back.

A line of five fields, or of six whose first are the seconds. cronsim reads it and walks through the times that a clock
on the wall would show; which instants these are is decided here, the same for five fields and for six, and as Debian's
cron does:

- A line that names its minutes and hours (neither field begins with `*`) is due once for each time it names. One that a
  clock put forward leaps over is due at the leap. One that a clock put back shows twice is due the first time.
- A line with `*` at the beginning of its minutes or hours follows the hands: what they leap over is not due, and what
  they pass twice is due twice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from . import limits
from .errors import FieldViolation, InvalidArgument

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_MONTH = -2
_FORM = "five fields (minute, hour, day of month, month, day of week), or six with the seconds first"


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line and the name of the time zone whose clocks it goes by."""

    line: str
    zone: str

    def walk(self, moment: datetime) -> Iterator[datetime]:
        """The instants after `moment` at which it is due, in UTC; ends if there is none for fifty years."""
        zone = ZoneInfo(self.zone)
        return _by_the_hands(self.line, zone, moment) if self._follows else _by_name(self.line, zone, moment)

    @property
    def _follows(self) -> bool:
        return any(field.startswith("*") for field in self.line.split()[-5:-3])


def check_cron(line: str, zone: str, at: str) -> Cron:
    """A line that is due at some time. Raises InvalidArgument that names the field below `at` and what is wrong."""
    if len(line) > limits.CRON_LINE:
        rule = f"must have at most {limits.CRON_LINE} characters; got {len(line):,}"
        raise InvalidArgument(FieldViolation(f"{at}.line", rule))
    if (zone or "UTC") not in time_zones():
        rule = f"must be a name of the IANA time zone database, such as Europe/Berlin; got {zone[:80]!r}"
        raise InvalidArgument(FieldViolation(f"{at}.time_zone", rule))
    cron = Cron(" ".join(line.split()), zone or "UTC")
    try:
        if next(cron.walk(datetime(2000, 1, 1, tzinfo=UTC)), None) is not None:
            return cron
        rule = f"{cron.line!r} is never due within fifty years"
    except CronSimError as error:
        rule = f"{cron.line!r} is no cron line: {str(error)[:1].lower()}{str(error)[1:]}; it has {_FORM}"
        if _names_no_day(cron.line):
            rule = f"{cron.line!r} is never due: no such day is in these months"
    raise InvalidArgument(FieldViolation(f"{at}.line", rule))


@functools.cache
def time_zones() -> frozenset[str]:
    """The names that the IANA database has here, without those that stand for no zone of it."""
    return frozenset(available_timezones() - {"localtime", "Factory"})


def _names_no_day(line: str) -> bool:
    """Whether a line is wrong only in that its months never have the days it names, as 30 February."""
    fields = line.split()
    if len(fields) not in (5, 6):
        return False
    fields[_MONTH] = "*"
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1))  # noqa: DTZ001  (read, not walked)
    except CronSimError:
        return False
    return True


def _by_name(line: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    for wall in CronSim(line, moment.astimezone(zone).replace(tzinfo=None)):
        instant = _instant(wall, zone)
        # All that one leap leaps over is due once.
        if instant > moment:
            moment = instant
            yield instant


def _by_the_hands(line: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    shown = moment.astimezone(zone).replace(tzinfo=None)
    while True:
        offset, looked, change = _offset(moment, zone), moment, None
        for wall in CronSim(line, shown):
            instant = (wall - offset).replace(tzinfo=UTC)
            while change is None and looked < instant:
                if _offset(looked + _DAY, zone) != offset:
                    change = _change(looked, looked + _DAY, zone)
                looked += _DAY
            if change is not None and instant >= change:
                break
            yield instant
        if change is None:
            return
        # What the hands show at the very moment of their change counts.
        moment = change
        shown = moment.astimezone(zone).replace(tzinfo=None) - _SECOND


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When a clock shows `wall` for the first time; when it leaps, if it leaps over it."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall:
        return instant
    return _change(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), instant, zone)


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The first second of the offset that holds at `after`, and not at `before`."""
    offset = _offset(before, zone)
    before = before.replace(microsecond=0)
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        before, after = (middle, after) if _offset(middle, zone) == offset else (before, middle)
    return after


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset

"""One column: which type its values have, and the values in that type.

The rule is all or nothing: a column has a type only if every value in it fits, and is text otherwise, so nothing is
lost, or guessed for a part of it. Native cells count as what they are; text is read as something else in these forms:

- numbers: `12`, `-3.5`, `1,234.50` (the comma groups thousands), alone or among native numbers. Not with a leading zero
  or plus (postcodes, telephone numbers), an exponent, or more than 15 digits (identity numbers lose digits as floats);
- percentages: `12.5%` becomes 0.125, as Excel keeps its own, if the whole column is text in this form;
- dates: `2024-01-31`, `2024/1/31`, either one with a time ` 08:30` or `T08:30:15.250`, alone or among native dates;
- `true` and `false` in any case, alone or among native ones.

Whole numbers are int (Excel itself keeps every number as a float); a date column with a time anywhere is datetime.
Spans of time (26:30:00) become text, since Parquet has no type for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Literal, TypeAlias

from jobwire_workers.excel_parse.cells import Cell, Value, as_text

ColumnType: TypeAlias = Literal["int", "float", "bool", "date", "datetime", "time", "text"]

_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_MOST_DIGITS = 15
_LARGEST_EXACT = 2**53
"""Above this a float no longer tells neighbouring whole numbers apart, so calling it an int would claim too much."""

_DATE = re.compile(r"(\d{4})([-/])(\d{1,2})\2(\d{1,2})", re.ASCII)
_TIME = re.compile(r"\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?", re.ASCII)


def infer(values: Sequence[Value]) -> tuple[ColumnType, list[Value]]:
    """The type of a column of tidied values, and the values in it; None stays None. A column of None is text."""
    present = [value for value in values if value is not None]
    kind, typed = _read(present)
    following = iter(typed)
    return kind, [None if value is None else next(following) for value in values]


class _MisfitError(Exception):
    """A value of the column is not of the type that is being tried."""


def _read(present: Sequence[Cell]) -> tuple[ColumnType, Sequence[Value]]:
    if present:
        for reader in (_numbers, _percentages, _truths, _moments, _times):
            try:
                return reader(present)
            except _MisfitError:
                continue
    return "text", [as_text(value) for value in present]


def _numbers(present: Sequence[Cell]) -> tuple[ColumnType, Sequence[Value]]:
    numbers = [_number(value) for value in present]
    if all(_is_whole(number) for number in numbers):
        return "int", [int(number) for number in numbers]
    return "float", [float(number) for number in numbers]


def _number(value: Cell) -> float:
    if isinstance(value, bool):
        raise _MisfitError
    if isinstance(value, int | float):
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value) and sum(map(str.isdigit, value)) <= _MOST_DIGITS:
        return float(value.replace(",", ""))
    raise _MisfitError


def _is_whole(number: float) -> bool:
    return abs(number) <= _LARGEST_EXACT and float(number).is_integer()


def _percentages(present: Sequence[Cell]) -> tuple[ColumnType, Sequence[Value]]:
    return "float", [_percentage(value) for value in present]


def _percentage(value: Cell) -> float:
    if isinstance(value, str) and value.endswith("%"):
        return float(_number(value[:-1].rstrip())) / 100
    raise _MisfitError


def _truths(present: Sequence[Cell]) -> tuple[ColumnType, Sequence[Value]]:
    return "bool", [_truth(value) for value in present]


def _truth(value: Cell) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.casefold() in ("true", "false"):
        return value.casefold() == "true"
    raise _MisfitError


def _moments(present: Sequence[Cell]) -> tuple[ColumnType, Sequence[Value]]:
    moments = [_moment(value) for value in present]
    if any(isinstance(moment, datetime) for moment in moments):
        return "datetime", [_with_time(moment) for moment in moments]
    return "date", moments


def _moment(value: Cell) -> date | datetime:
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not (day := _DATE.match(value)):
        raise _MisfitError
    hour = value[day.end() :]
    try:
        parsed = date(int(day[1]), int(day[3]), int(day[4]))
        if not hour:
            return parsed
        if hour[0] in " T" and _TIME.fullmatch(hour, 1):
            return datetime.combine(parsed, time.fromisoformat(hour[1:]))
    except ValueError:  # 2024-02-30, 25:00
        pass
    raise _MisfitError


def _with_time(moment: date | datetime) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time.min)


def _times(present: Sequence[Cell]) -> tuple[ColumnType, Sequence[Value]]:
    if all(isinstance(value, time) for value in present):
        return "time", present
    raise _MisfitError

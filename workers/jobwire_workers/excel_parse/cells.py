"""One cell: what it may hold, and its form as text.

After `tidy`, `None` is the only way in which a value is missing, and text is trimmed and not empty.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import TypeAlias

Cell: TypeAlias = int | float | str | bool | date | datetime | time | timedelta
"""What the reader gives for one cell; the empty cell and a formula's error (#N/A, #DIV/0!) are the empty text."""

Value: TypeAlias = Cell | None


def tidy(cell: Cell) -> Value:
    """The cell without white space around its text; None for an empty one."""
    if not isinstance(cell, str):
        return cell
    # NUL is no character of text: Parquet readers and PostgreSQL stumble over it.
    return cell.replace("\0", "").strip() or None


def as_text(value: Cell) -> str:
    """The value as a person would type it: 5 (never 5.0), TRUE, 2024-01-31, 2024-01-31 08:30:00, 08:30:00, 26:30:00."""
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case float() if value.is_integer():
            return str(int(value))
        case datetime():
            return value.isoformat(sep=" ")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return _hours(value)
        case _:
            return str(value)


def _hours(span: timedelta) -> str:
    """A span as spreadsheets show it: hours beyond 24 instead of days."""
    seconds = round(abs(span).total_seconds())
    sign = "-" if span < timedelta(0) else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"

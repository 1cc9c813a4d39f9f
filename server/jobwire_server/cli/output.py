"""How results look: JSON lines for programs, tables for people."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from jobwire_server.api import fields

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def print_json(value: Any) -> None:
    """Prints a mapping, or the fields of a dataclass, as one line."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    sys.stdout.write(json.dumps(plain, default=_plain, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, whole: Sequence[str] = ()) -> None:
    """Prints rows under headings; numbers are right-aligned, and what is in the columns `whole` is never cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name in whole)
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console().print(table, markup=False)


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Prints names and values, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value if isinstance(value, Table) else str(value))
    Console().print(table, markup=False)


def moment(when: datetime | None) -> str:
    """A point in time in the local time zone."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if when else "-"


def span(seconds: float | None) -> str:
    """A duration, such as `15 minutes`."""
    return "-" if seconds is None else fields.span(round(seconds * 1_000))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")

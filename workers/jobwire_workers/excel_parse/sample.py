"""Makes a large, dirty workbook of real data: `python -m jobwire_workers.excel_parse.sample PATH`.

The sheet is a plan of rotations: each row calls at thirteen airports and repeats what is known of each, as wide exports
do. The airports are those of the PyPI package `airportsdata` (28,000 of them, MIT licence), in the order of their ICAO
codes, over and over. What people do to sheets is done to this one: names with spaces and line breaks, repeated and
missing; blank rows and columns; numbers stored as text; columns of mixed types.

Always holds: the same bytes for the same data set; cleaned, it has exactly the rows asked for, and COLUMNS columns.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import airportsdata
import xlsxwriter  # type: ignore[import-untyped]

ROWS = 3339
COLUMNS = 151

_STOPS = 13
_FIELDS = ("icao", "iata", "name", "city", "subd", "country", "elevation", "lat", "lon", "tz", "lid")
_PLAN_HEADERS = (
    "Rotation No.",
    " Inspection\nDate ",
    "Reported at",
    "Crew",
    "Load\u00a0factor",
    "Cargo (kg)",
    "OK?",
    "",
)
_BLANK_ROW_EVERY = 250

_Cell = str | float | bool | date | datetime | None


def write_sample(path: str | os.PathLike[str], rows: int = ROWS) -> None:
    """Writes the workbook to `path`, over what is there; `rows` counts the rows that hold data. Takes some seconds."""
    with xlsxwriter.Workbook(path, {"constant_memory": True, "default_date_format": "yyyy-mm-dd"}) as book:
        # Otherwise the file would carry the time of its making, and no two would be alike.
        book.set_properties({"created": datetime(2024, 1, 1, tzinfo=UTC)})
        moment = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        sheet = book.add_worksheet("Rotations")
        for at, row in enumerate(_sheet_rows(rows)):
            for column, cell in enumerate(row):
                if isinstance(cell, datetime):
                    sheet.write_datetime(at, column, cell, moment)
                elif cell is not None:
                    sheet.write(at, column, cell)


def _sheet_rows(rows: int) -> Iterator[Sequence[_Cell]]:
    """All rows as they lie in the sheet: a blank one, the header, then data with blank rows strewn in."""
    yield ()
    yield _with_blank_columns([*_PLAN_HEADERS, *chain.from_iterable(map(_stop_headers, range(_STOPS)))])
    stops = cycle(_airports())
    for number in range(rows):
        if number % _BLANK_ROW_EVERY == _BLANK_ROW_EVERY - 1:
            yield (None, "  ", "\u00a0") if number % 2 else ()
        calls = islice(stops, _STOPS)
        yield _with_blank_columns([*_plan(number), *chain.from_iterable(calls)])


def _airports() -> list[list[_Cell]]:
    """What is known of each airport, in the order of _FIELDS; what is not known is a blank cell."""
    airports: Mapping[str, Mapping[str, Any]] = airportsdata.load()
    return [
        [None if airport[field] == "" else airport[field] for field in _FIELDS]
        for _, airport in sorted(airports.items())
    ]


def _with_blank_columns(cells: list[_Cell]) -> list[_Cell]:
    """A row with the sheet's blank columns: the first, one after the plan, and one of mere spaces at the end."""
    plan = len(_PLAN_HEADERS)
    return [None, *cells[:plan], None, *cells[plan:], " "]


def _stop_headers(stop: int) -> Iterator[str]:
    """The names for one airport's columns: as four people would type them who never met."""
    for field in _FIELDS:
        if field == "lid" and stop % 5 == 4:
            yield ""
        else:
            yield (field, f" {field.title()} ", f"{field.upper()}\n(stop {stop + 1})", f"{field}  ")[stop % 4]


def _plan(number: int) -> list[_Cell]:
    """The row's own data, one column per name in _PLAN_HEADERS."""
    day = date(2024, 1, 1) + timedelta(days=number % 731)
    reported = datetime(2024, 1, 1, 5, 30, tzinfo=UTC) + timedelta(minutes=37 * number)
    cargo = 400 + number * 7919 % 24000
    remark = (None, "checked", number, day, f"see R-{number:05}", 0.5)[number % 6]
    return [
        f"R-{number + 1:05}",
        None if number % 97 == 0 else day,
        reported.replace(tzinfo=None),
        2 + number % 5,
        f"{50 + number * 13 % 500 / 10}%",
        f"{cargo:,}" if number % 3 else cargo,
        number % 11 != 0,
        remark,
    ]


def main() -> None:
    """Writes the sample workbook to the path on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jobwire_workers.excel_parse.sample",
        description=f"Writes a workbook of {ROWS} rows and {COLUMNS} columns of real, dirty data.",
    )
    parser.add_argument("path", type=Path, help="the .xlsx file to write")
    write_sample(parser.parse_args().path)


if __name__ == "__main__":
    main()

"""What each client passes: one table, for the terminal, for programs, and for docs/conformance.md."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tests.conformance.clients import CLIENTS, ROOT
from tests.conformance.scenarios import SCENARIOS

PAGE = ROOT / "docs/conformance.md"
PASSES, NOT_CLAIMED, FAILS, NOT_RUN = "passes", "not claimed", "fails", "not run"

Column = Mapping[str, str]
"""By scenario, what became of it."""

_BEGIN, _END = "<!-- `make conformance ARGS=--write` writes what follows -->", "<!-- as far as here -->"
_PARTS = re.compile(f"(?P<before>.*{re.escape(_BEGIN)}\n).*(?P<after>{re.escape(_END)}.*)", re.DOTALL)


def of_claims(claims: Sequence[str]) -> Column:
    """The column of a client that passes what it claims."""
    return {name: PASSES if name in claims else NOT_CLAIMED for name in SCENARIOS}


def as_markdown(columns: Mapping[str, Column]) -> str:
    """The table, as it stands in the page: a row for each scenario, a column for each client."""
    rows = [
        ["scenario", "what is promised", *columns],
        ["---"] * (2 + len(columns)),
        *(
            [f"`{name}`", scenario.promise, *(column.get(name, NOT_RUN) for column in columns.values())]
            for name, scenario in SCENARIOS.items()
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def from_markdown(page: str) -> dict[str, Column]:
    """The columns of the table in a page."""
    cells = [
        [cell.strip() for cell in line.strip("| \n").split(" | ")] for line in page.splitlines() if line[:2] == "| "
    ]
    if not cells:
        return {}
    names = [row[0].strip("`") for row in cells[2:]]
    return {
        client: dict(zip(names, (row[place] for row in cells[2:]), strict=True))
        for place, client in enumerate(cells[0])
        if client in CLIENTS
    }


def written_into(page: str, columns: Mapping[str, Column]) -> str:
    """The page with new columns; those of clients that are not among them stay as they are."""
    parts = _PARTS.fullmatch(page)
    if parts is None:
        raise ValueError(f"{PAGE} has lost its marks: {_BEGIN} and {_END}")
    all_columns = {**from_markdown(page), **columns}
    ordered = {name: all_columns[name] for name in CLIENTS if name in all_columns}
    return f"{parts['before']}\n{as_markdown(ordered)}\n{parts['after']}"


def as_text(columns: Mapping[str, Column]) -> str:
    """The table for a terminal."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("scenario", *columns):
        table.add_column(head, no_wrap=True)
    for name in SCENARIOS:
        cells = (column.get(name, NOT_RUN) for column in columns.values())
        table.add_row(name, *(cell.upper() if cell == FAILS else cell for cell in cells))
    out = io.StringIO()
    Console(file=out, width=24 + 16 * len(columns)).print(table, markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

"""Column names: from whatever stands in the header row to names that a program can rely on.

Always holds: one name per column, none empty, none longer than `MAX_NAME` characters, no two alike in any spelling of
upper and lower case (SQL engines that read Parquet do not tell those apart).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jobwire_workers.excel_parse.cells import Value, as_text

MAX_NAME = 120
"""Longest column name, in characters; what a sheet has beyond it is a paragraph, not a name."""

# Besides white space (line breaks and no-break spaces are part of \s): marks of no width, and controls.
_BLANKS = re.compile(r"[\s\u200b\u200e\u200f\u2060\ufeff\x00-\x1f\x7f]+")


def clean_headers(header: Sequence[Value]) -> list[str]:
    """Names for the columns, in order: blanks collapsed, repeats numbered, empty ones `column_N` (N counts from 1).

    The first of several columns with one name keeps it; the others become `name_2`, `name_3`, …, past any name that the
    sheet itself uses.
    """
    wanted = [_one_line(value) or f"column_{number}" for number, value in enumerate(header, start=1)]
    # The sheet's own names come first, so that "a", "a", "a_2" leaves "a_2" to the column that is called so.
    used = {name.casefold() for name in wanted}
    repeats: dict[str, int] = {}
    names = []
    for name in wanted:
        key = name.casefold()
        number = repeats.get(key, 0) + 1
        unique = name
        if number > 1:
            while (unique := _numbered(name, number)).casefold() in used:
                number += 1
            used.add(unique.casefold())
        repeats[key] = number
        names.append(unique)
    return names


def _one_line(value: Value) -> str:
    text = "" if value is None else as_text(value)
    return _BLANKS.sub(" ", text).strip()[:MAX_NAME].rstrip()


def _numbered(name: str, number: int) -> str:
    suffix = f"_{number}"
    return name[: MAX_NAME - len(suffix)] + suffix

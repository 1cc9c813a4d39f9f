"""What a parse answers: where the clean data lies and what is in it, small enough for a job's output.

Always holds: `to_json()` is plain JSON (no NaN, no NUL, no dates) and stays under the 64 KiB that a job's output may
have by default, however wide the sheet and however long its texts.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypedDict

import polars as pl

from jobwire_workers.excel_parse.cells import Value, as_text
from jobwire_workers.excel_parse.cleaning import column_types
from jobwire_workers.excel_parse.columns import ColumnType

PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 8
_PREVIEW_TEXT = 60
_MAX_TYPES_BYTES = 24 * 1024

JsonScalar: TypeAlias = str | int | float | bool | None


class NamedType(TypedDict):
    """A column of the clean data."""

    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long each stage took, in seconds."""

    reading: float
    parsing: float
    cleaning: float
    writing: float
    total: float


@dataclass(frozen=True, slots=True)
class ParseResult:
    """What a parse answers."""

    clean_key: str
    """Where the clean data lies, in the storage of the source."""
    sheet: str
    """Name of the sheet that was parsed."""
    rows: int
    """Rows of data; the header is not counted."""
    columns: int
    """Columns of data."""
    types: list[NamedType]
    """The columns in order; of a very wide sheet only the first ones, the clean data has them all."""
    preview: list[list[JsonScalar]]
    """The first 5 rows, each with the values of the first 8 columns; dates as ISO text, long text is cut ("…")."""
    seconds: Seconds
    """How long each stage took."""

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values, its fields by name."""
        return asdict(self)


def describe(frame: pl.DataFrame, *, clean_key: str, sheet: str, seconds: Seconds) -> ParseResult:
    """The result for a clean frame."""
    first = frame.head(PREVIEW_ROWS).select(frame.columns[:PREVIEW_COLUMNS])
    return ParseResult(
        clean_key=clean_key,
        sheet=sheet,
        rows=frame.height,
        columns=frame.width,
        types=_types(frame),
        preview=[[_plain(value) for value in row] for row in first.iter_rows()],
        seconds=seconds,
    )


def _types(frame: pl.DataFrame) -> list[NamedType]:
    types: list[NamedType] = []
    room = _MAX_TYPES_BYTES
    for name, kind in column_types(frame).items():
        column = NamedType(name=name, type=kind)
        room -= len(json.dumps(column)) + 2
        if room < 0:
            break
        types.append(column)
    return types


def _plain(value: Value) -> JsonScalar:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    text = as_text(value)
    return text if len(text) <= _PREVIEW_TEXT else text[: _PREVIEW_TEXT - 1] + "…"

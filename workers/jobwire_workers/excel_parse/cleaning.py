"""From the rows of a sheet to a typed frame.

Always holds for the frame: unique names (`headers.py`), one type per column (`columns.py`), no row without a value, no
column that has neither a name nor a value. A named column without values stays: whoever reads the clean data by name
must not lose it because nobody filled it in this time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from jobwire_workers.excel_parse.cells import Value
from jobwire_workers.excel_parse.columns import ColumnType, infer
from jobwire_workers.excel_parse.headers import clean_headers
from jobwire_workers.excel_parse.progress import Report, report_tenths

_DTYPES: dict[ColumnType, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
    "time": pl.Time(),
    "text": pl.String(),
}


def clean(rows: Sequence[Sequence[Value]], report: Report) -> pl.DataFrame:
    """The frame of a sheet. `rows`: tidied values, all rows of one length; the first one is the header, not blank."""
    header, *body = (row for row in rows if _any_value(row))
    columns = [[row[place] for row in body] for place in range(len(header))]
    kept = [place for place, column in enumerate(columns) if header[place] is not None or _any_value(column)]
    names = clean_headers([header[place] for place in kept])
    series = []
    for count, (name, place) in enumerate(zip(names, kept, strict=True), start=1):
        kind, values = infer(columns[place])
        series.append(pl.Series(name, values, dtype=_DTYPES[kind]))
        report_tenths(report, count, len(kept), "column")
    return pl.DataFrame(series)


def column_types(frame: pl.DataFrame) -> dict[str, ColumnType]:
    """The type of each column of a clean frame, by name, in order."""
    words = {dtype: word for word, dtype in _DTYPES.items()}
    return {name: words[dtype] for name, dtype in frame.schema.items()}


def _any_value(values: Iterable[Value]) -> bool:
    return any(value is not None for value in values)

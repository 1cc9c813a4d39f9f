"""A job's output is plain JSON and small, whatever the sheet holds."""

from __future__ import annotations

import json

import polars as pl
import pytest

from jobwire_workers.excel_parse.headers import MAX_NAME
from jobwire_workers.excel_parse.result import ParseResult, Seconds, describe

LIMIT = 64 * 1024


def result_of(frame: pl.DataFrame) -> ParseResult:
    return describe(frame, clean_key="k.clean.parquet", sheet="Sheet1", seconds=Seconds(0, 0, 0, 0, 0))


@pytest.mark.parametrize("letter", ["a", "报", "😀", "\x01", '"'])
def test_the_widest_sheet_with_the_longest_texts_fits_into_a_jobs_output(letter: str) -> None:
    columns = 16_384
    names = [f"{number:05}".rjust(MAX_NAME, letter) for number in range(columns)]
    result = result_of(
        pl.DataFrame({name: [letter * 32_767] * 10 for name in names[:8]} | {n: [""] * 10 for n in names[8:]})
    )
    assert (result.rows, result.columns) == (10, columns)
    assert 8 <= len(result.types) < columns
    assert [len(row) for row in result.preview] == [8] * 5
    assert len(json.dumps(result.to_json())) < LIMIT


def test_what_json_lacks_is_not_in_the_preview() -> None:
    result = result_of(pl.DataFrame({"x": [float("nan"), float("inf"), 1.5], "long": ["x" * 61, "y" * 60, None]}))
    assert result.preview == [[None, "x" * 59 + "…"], [None, "y" * 60], [1.5, None]]
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["rows"] == 3

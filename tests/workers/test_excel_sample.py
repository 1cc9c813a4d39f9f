"""The sample workbook is the size that it promises once cleaned, dirty before, and the same every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import airportsdata

from jobwire_workers.excel_parse.reading import read_sheet
from jobwire_workers.excel_parse.sample import COLUMNS, ROWS, write_sample
from tests.workers.desk import Desk


def test_the_sample_is_real_and_dirty_and_comes_out_clean(desk: Desk) -> None:
    write_sample(desk.folder / "sample.xlsx")
    result = desk.parse_key("sample.xlsx")
    assert (result.rows, result.columns) == (ROWS, COLUMNS) == (3339, 151)
    assert {column["type"] for column in result.types} == {"text", "int", "float", "bool", "date", "datetime"}

    raw = read_sheet((desk.folder / "sample.xlsx").read_bytes(), lambda *_: None).rows
    header = raw[0]
    blank_columns = [place for place in range(len(header)) if all(row[place] is None for row in raw)]
    assert len(blank_columns) == 2  # the reader itself leaves out those before the first value
    assert header.count(None) > len(blank_columns)
    assert sum(all(value is None for value in row) for row in raw) > 10
    assert any("\n" in str(name) for name in header)
    assert Counter(str(name).strip().casefold() for name in header)["icao"] > 1

    clean = desk.clean((desk.folder / "sample.xlsx").read_bytes(), "copy.xlsx")
    airports = airportsdata.load()
    for icao, name, latitude, elevation in clean.select("icao", "name", "lat", "elevation").iter_rows():
        airport = airports[icao]
        assert (airport["name"].strip(), airport["lat"], airport["elevation"]) == (name, latitude, elevation)
    assert 0.0 in clean["elevation"]


def test_the_sample_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one.xlsx", "two.xlsx"):
        write_sample(tmp_path / name, rows=600)
    assert (tmp_path / "one.xlsx").read_bytes() == (tmp_path / "two.xlsx").read_bytes()

"""The way of a workbook: what is in the clean data, and that the end state depends on the source alone."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from jobwire_workers.excel_parse import InputError, parse_workbook, read_clean
from tests.workers.desk import Desk
from tests.workers.workbooks import Rows, ods, xls, xlsx

SEEN = datetime(2024, 1, 31, 8, 30)  # noqa: DTZ001  (sheets know no time zones)
DIRTY: Rows = [
    [],
    [None, " Name ", "name", None, "Born\non", "Seen at", "Share", "Notes", None, "Nothing yet"],
    [None, "Ann", 1, None, date(1990, 1, 31), SEEN, "12.5%", 7],
    ["  ", None, None, "\u00a0"],
    [None, "Bob ", 2, None, None, date(2024, 2, 1), "50%", "see 7", "odd"],
    [],
]
"""A blank row on top, blank columns and rows inside, repeated and missing names, mixed types."""


def test_a_dirty_sheet_is_cleaned(desk: Desk) -> None:
    expected = pl.DataFrame(
        {
            "Name": ["Ann", "Bob"],
            "name_2": [1, 2],
            "Born on": [date(1990, 1, 31), None],
            "Seen at": [SEEN, datetime(2024, 2, 1)],  # noqa: DTZ001
            "Share": [0.125, 0.5],
            "Notes": ["7", "see 7"],
            "column_7": [None, "odd"],
            "Nothing yet": [None, None],
        },
        schema_overrides={"Nothing yet": pl.String},
    )
    assert_frame_equal(desk.clean(xlsx(DIRTY)), expected)


def test_the_result_says_what_is_in_the_clean_data(desk: Desk) -> None:
    result = desk.parse(xlsx(DIRTY), "uploads/book.xlsx").to_json()
    seconds = result.pop("seconds")
    assert set(seconds) == {"reading", "parsing", "cleaning", "writing", "total"}
    assert result == {
        "clean_key": "uploads/book.xlsx.clean.parquet",
        "sheet": "Sheet1",
        "rows": 2,
        "columns": 8,
        "types": [
            {"name": "Name", "type": "text"},
            {"name": "name_2", "type": "int"},
            {"name": "Born on", "type": "date"},
            {"name": "Seen at", "type": "datetime"},
            {"name": "Share", "type": "float"},
            {"name": "Notes", "type": "text"},
            {"name": "column_7", "type": "text"},
            {"name": "Nothing yet", "type": "text"},
        ],
        "preview": [
            ["Ann", 1, "1990-01-31", "2024-01-31 08:30:00", 0.125, "7", None, None],
            ["Bob", 2, None, "2024-02-01 00:00:00", 0.5, "see 7", "odd", None],
        ],
    }


@pytest.mark.parametrize("key", ["a.xlsx", "deep/er/报告 2024 (1).xlsx", "100% #1 ~é.xlsx"])
def test_the_clean_data_lies_beside_the_source(desk: Desk, key: str) -> None:
    result = desk.parse(xlsx([["a"], [1]]), key)
    assert result.clean_key == f"{key}.clean.parquet"
    assert pl.read_parquet(desk.folder / result.clean_key).to_dict(as_series=False) == {"a": [1]}


def test_the_first_visible_sheet_with_data_is_taken(desk: Desk) -> None:
    book = xlsx([], hidden=[["h"], [1]], Blank=[[" "], ["\u00a0"]], Data=[["d"], [2]], More=[["m"], [3]])
    assert desk.parse(book).sheet == "Data"


def test_a_sheet_with_nothing_but_a_header_has_no_rows(desk: Desk) -> None:
    result = desk.parse(xlsx([["a", "b"]]))
    assert (result.rows, result.columns, result.preview) == (0, 2, [])
    assert [column["type"] for column in result.types] == ["text", "text"]


def test_formatting_far_from_the_data_does_no_harm(desk: Desk) -> None:
    result = desk.parse(xlsx([["a"], [1]], last_cell=""))
    assert (result.rows, result.columns) == (1, 1)


def test_other_kinds_of_workbook(desk: Desk) -> None:
    rows = [["Name", "When"], ["Ann", "2024-01-31"]]
    expected = {"Name": ["Ann"], "When": [date(2024, 1, 31)]}
    assert desk.clean(ods(rows), "a.ods").to_dict(as_series=False) == expected
    assert desk.clean(xls(rows), "a.xls").to_dict(as_series=False) == expected


def test_a_second_run_ends_in_the_same_state(desk: Desk) -> None:
    first = desk.parse(xlsx(DIRTY))
    content = (desk.folder / first.clean_key).read_bytes()
    second = desk.parse(xlsx(DIRTY))
    assert (desk.folder / second.clean_key).read_bytes() == content
    assert first.to_json() | {"seconds": None} == second.to_json() | {"seconds": None}
    assert sorted(path.name for path in desk.folder.iterdir()) == ["book.xlsx", "book.xlsx.clean.parquet"]


def test_a_changed_source_replaces_the_clean_data(desk: Desk) -> None:
    desk.parse(xlsx([["a"], [1]]))
    assert desk.clean(xlsx([["b"], [2]])).to_dict(as_series=False) == {"b": [2]}


def test_a_run_that_fails_leaves_the_older_clean_data(desk: Desk) -> None:
    key = desk.parse(xlsx([["a"], [1]])).clean_key
    with pytest.raises(InputError):
        desk.parse(b"no workbook")
    assert read_clean(desk.store, key).to_dict(as_series=False) == {"a": [1]}


class StopNowError(RuntimeError):
    pass


def test_a_report_may_stop_the_work_at_any_point(desk: Desk) -> None:
    key = desk.put(xlsx(DIRTY))
    parse_workbook(desk.store, key, lambda fraction, note: desk.reports.append((fraction, note)))
    reports = len(desk.reports)
    (desk.folder / f"{key}.clean.parquet").unlink()
    for last in range(reports - 1):  # the very last one comes after the writing
        countdown = iter(range(last))

        def stop(_fraction: float, _note: str, countdown: Any = countdown) -> None:
            if next(countdown, None) is None:
                raise StopNowError

        with pytest.raises(StopNowError):
            parse_workbook(desk.store, key, stop)
        assert [path.name for path in desk.folder.iterdir()] == [key]


def test_progress_never_falls_and_is_not_chatty(desk: Desk) -> None:
    desk.parse(xlsx([[" "]] * 50, Data=[[*"abcdefghijkl"], *([number] * 12 for number in range(1000))]))
    fractions = [fraction for fraction, _ in desk.reports]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(fractions) <= 30
    notes = [note for _, note in desk.reports]
    assert "row 501 of 1,001" in notes
    assert notes[-1] == "1,000 rows, 12 columns"


# What a sheet can hold without loss: whole seconds, 15 digits, no text that means something else.
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20).map(lambda text: f"w{text}")
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(10**15) + 1, 10**15 - 1),
    "float": st.integers(-(10**9), 10**9).map(lambda number: number + 0.25),
    "bool": st.booleans(),
    "date": st.dates(date(1901, 1, 1)),
    "datetime": st.datetimes(datetime(1901, 1, 1), datetime(2999, 1, 1)).map(  # noqa: DTZ001
        lambda moment: moment.replace(hour=moment.hour or 1, microsecond=0)  # midnight alone reads as a date
    ),
    "time": st.times().map(lambda moment: moment.replace(microsecond=0)),
    "text": WORDS,
}


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Columns of values by unique name, some of them missing; the first one is full, so that no row is blank."""
    rows = draw(st.integers(1, 8))
    table: dict[str, list[Any]] = {"full": draw(st.lists(WORDS, min_size=rows, max_size=rows))}
    for number, kind in enumerate(draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=6))):
        values = st.one_of(COLUMNS[kind], st.none())
        table[f"{kind} {number}"] = draw(st.lists(values, min_size=rows, max_size=rows))
    return table


@given(tables())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_clean_table_survives_the_way_through_a_workbook(desk: Desk, table: dict[str, list[Any]]) -> None:
    rows = [list(table), *zip(*table.values(), strict=True)]
    assert desk.clean(xlsx(rows)).to_dict(as_series=False) == table


def test_times_of_day_stay(desk: Desk) -> None:
    assert desk.clean(xlsx([["at"], [time(8, 30)]])).to_dict(as_series=False) == {"at": [time(8, 30)]}

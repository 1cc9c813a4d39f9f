"""A column's type is what all its values fit; nothing is lost on the way to it."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwire_workers.excel_parse.cells import as_text, tidy
from jobwire_workers.excel_parse.columns import infer

DAY = date(2024, 1, 31)
MOMENT = datetime(2024, 1, 31, 8, 30)  # noqa: DTZ001  (sheets know no time zones)


@pytest.mark.parametrize(
    ("values", "kind", "typed"),
    [
        ([1.0, None, -3.0], "int", [1, None, -3]),
        ([1.0, 2.5], "float", [1.0, 2.5]),
        ([1e300], "float", [1e300]),
        ([2.0**53, 2.0**54], "float", [2.0**53, 2.0**54]),
        (["1,234", "5", 6.0], "int", [1234, 5, 6]),
        (["-1,234.50", "0.5"], "float", [-1234.5, 0.5]),
        (["12.5%", "100 %"], "float", [0.125, 1.0]),
        ([True, False], "bool", [True, False]),
        (["true", "FALSE", True], "bool", [True, False, True]),
        ([DAY, None], "date", [DAY, None]),
        ([DAY, MOMENT], "datetime", [datetime(2024, 1, 31), MOMENT]),  # noqa: DTZ001
        (["2024-01-31", "2024/1/31", DAY], "date", [DAY, DAY, DAY]),
        (["2024-01-31T08:30", "2024-01-31 08:30:00.000"], "datetime", [MOMENT, MOMENT]),
        ([time(8, 30)], "time", [time(8, 30)]),
        ([None, None], "text", [None, None]),
        ([], "text", []),
    ],
)
def test_typed_columns(values: list[Any], kind: str, typed: list[Any]) -> None:
    assert infer(values) == (kind, typed)
    assert [type(value) for value in infer(values)[1]] == [type(value) for value in typed]


@pytest.mark.parametrize(
    "values",
    [
        ["007", "12"],  # a code: its zeros count
        ["+49", "12"],  # a telephone number
        ["1e5"],
        ["110101199003074477"],  # an identity number: more digits than a float has
        ["1,23", "4"],  # a comma that groups no thousands
        ["12%", "12"],  # which of the two is 0.12?
        ["٣"],  # a digit, but not one of ours
        ["2024-02-30", "2024-01-01"],  # no such day
        ["2024-01-01 25:00"],
        ["2024-01-01T08:30:00Z"],
        ["2024-01/31"],
        ["yes", "no"],
    ],
)
def test_what_only_looks_like_a_type_stays_text(values: list[str]) -> None:
    assert infer(values) == ("text", values)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.0, "a", 2.5], ["1", "a", "2.5"]),
        ([True, 1.0], ["TRUE", "1"]),
        ([DAY, "soon", MOMENT], ["2024-01-31", "soon", "2024-01-31 08:30:00"]),
        ([time(8, 30), 1.0], ["08:30:00", "1"]),
        ([timedelta(days=1, hours=2, minutes=30)], ["26:30:00"]),
        ([timedelta(minutes=-90)], ["-01:30:00"]),
    ],
)
def test_mixed_columns_become_text_as_it_would_be_typed(values: list[Any], texts: list[str]) -> None:
    assert infer(values) == ("text", texts)


def test_tidy() -> None:
    assert [tidy(cell) for cell in ("  a b\n", "", " \u00a0\u3000", "a\0b", "\0", 0.0, False)] == [
        "a b",
        None,
        None,
        "ab",
        None,
        0.0,
        False,
    ]


cells = st.one_of(
    st.none(),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.text(min_size=1),
    st.from_regex(r"-?[0-9,]{1,8}(\.[0-9]{1,3})?%?", fullmatch=True),
    st.from_regex(r"[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}([ T][0-9]{2}:[0-9]{2})?", fullmatch=True),
    st.sampled_from(["true", "FALSE", "0", "1"]),
)


@given(st.lists(cells, max_size=6))
def test_every_column_gets_one_type_and_no_value_is_lost(values: list[Any]) -> None:
    kind, typed = infer(values)
    expected = {"int": int, "float": float, "bool": bool, "date": date, "datetime": datetime, "time": time, "text": str}
    assert [value is None for value in typed] == [value is None for value in values]
    assert {type(value) for value in typed if value is not None} <= {expected[kind]}


@given(st.lists(st.one_of(st.integers(-(10**15) + 1, 10**15 - 1), st.booleans(), st.dates()), min_size=1))
def test_values_typed_as_text_are_read_back(values: list[Any]) -> None:
    """What people typed into cells formatted as text is the same data."""
    assert infer([as_text(value) for value in values]) == infer(values)

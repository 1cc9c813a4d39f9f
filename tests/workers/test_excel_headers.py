"""Names of columns are unique, readable and stable, whatever stands in the header row."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwire_workers.excel_parse.headers import MAX_NAME, clean_headers


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (["  Name ", "First\nname", "a\u00a0 \tb", "\ufeffid\u200b"], ["Name", "First name", "a b", "id"]),
        (["a", None, "", " "], ["a", "column_2", "column_3", "column_4"]),
        (["a", "a", "a"], ["a", "a_2", "a_3"]),
        (["Name", "name", "NAME "], ["Name", "name_2", "NAME_3"]),
        (["a", "a", "a_2", "a"], ["a", "a_3", "a_2", "a_4"]),
        (["column_2", None], ["column_2", "column_2_2"]),
        ([2024.0, 2.5, True, date(2024, 1, 31)], ["2024", "2.5", "TRUE", "2024-01-31"]),
        (["日期", "日期"], ["日期", "日期_2"]),
        (["x" * 500, "x" * 500], ["x" * MAX_NAME, "x" * (MAX_NAME - 2) + "_2"]),
        (["x" * (MAX_NAME - 1) + " y"], ["x" * (MAX_NAME - 1)]),
        # Two names that become one when they are shortened for their numbers.
        (
            ["x" * 119 + "a", "x" * 119 + "b"] * 2,
            ["x" * 119 + "a", "x" * 119 + "b", "x" * 118 + "_2", "x" * 118 + "_3"],
        ),
    ],
)
def test_names(header: list[Any], names: list[str]) -> None:
    assert clean_headers(header) == names


# Few letters, so that names meet; marks and digits, so that they meet the numbers given to repeats.
names = st.one_of(st.none(), st.text("aAß_23 \n\u00a0\u200b", max_size=6), st.text(max_size=200), st.integers(0, 3))


@given(st.lists(names, max_size=30))
def test_names_are_unique_and_clean(header: list[Any]) -> None:
    cleaned = clean_headers(header)
    assert len(cleaned) == len(header)
    assert len({name.casefold() for name in cleaned}) == len(header)
    for name in cleaned:
        assert 0 < len(name) <= MAX_NAME
        assert name == name.strip()
        assert "\n" not in name


@given(st.lists(names, max_size=30))
def test_clean_names_stay_as_they_are(header: list[Any]) -> None:
    cleaned = clean_headers(header)
    assert clean_headers(cleaned) == cleaned

"""docs/field-bugs.md: every line says which test covers it, or why none does, and the tests are there."""

from __future__ import annotations

import re

from tests.mutants.table import ROOT, functions

PAGE = ROOT / "docs" / "field-bugs.md"
LINES = {"D": 20, "S": 10, "T": 19, "U": 15}
ROW = re.compile(r"^\| ([DSTU]\d+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[a-z_/]+\.py)::(test_\w+)`")


def test_each_line_is_there_once_and_in_order() -> None:
    expected = [f"{letter}{number}" for letter, most in LINES.items() for number in range(1, most + 1)]
    assert [row[1] for row in ROW.finditer(PAGE.read_text())] == expected


def test_each_line_names_tests_that_exist_or_says_that_there_is_none() -> None:
    for line, said, here in (row.groups() for row in ROW.finditer(PAGE.read_text())):
        assert said.endswith("."), line
        named = TEST.findall(here)
        assert named or here.startswith("Not covered"), line
        assert here.count("::") == len(named), line
        for file, test in named:
            assert test in functions(file), f"{line}: {file}::{test}"

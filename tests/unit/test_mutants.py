"""The table of promises and their mutants does not rot; `make mutants` tries it."""

from __future__ import annotations

import re

from tests.mutants.table import HEAD, PAGE, faults, load


def test_what_the_table_names_is_there() -> None:
    assert list(faults(load())) == []


def test_the_page_has_one_table() -> None:
    assert PAGE.read_text().count(HEAD) == 1


def test_the_sentences_are_sentences() -> None:
    for promise in load():
        assert re.fullmatch(r"[A-Z][^|\n]*\.", promise.says)
        for mutant in promise.mutants:
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", mutant.name)
            assert re.fullmatch(r"[^|\n]+[^.|\n]", mutant.breaks)

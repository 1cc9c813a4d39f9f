"""What tables show is what is in them: brackets are text, and no command for colours."""

from __future__ import annotations

import pytest

from jobwire_server.cli.output import print_facts, print_table

TEXT = "[/b] [bold]x"


def test_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("one",), [(TEXT,)])
    print_facts([("two", TEXT)])
    assert capsys.readouterr().out.count(TEXT) == 2

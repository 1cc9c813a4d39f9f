"""What commands say: lines cut from what arrives, reports of progress, and outputs."""

from __future__ import annotations

from typing import Any

import pytest

from jobwire_server.cli.reports import Lines, Report, Tail, output_of, parsed


@pytest.mark.parametrize(
    ("printed", "output"),
    [
        ("", None),
        ("\n \n", None),
        ('{"rows": 3}\n', {"rows": 3}),
        ('{\n  "rows": 3\n}\n', {"rows": 3}),
        ('reading\nwriting\n{"rows": 3}\n', {"rows": 3}),
        ("1\n2\n", 2),
        ("reading\nall done\n", "all done"),
        ("NaN", "NaN"),
        ("[" * 100_000, "[" * 100_000),
        ("null", None),
    ],
    ids=range(10),
)
def test_the_output_is_all_that_is_printed_or_its_last_line(printed: str, output: Any) -> None:
    tail = Tail(1_000_000)
    tail.add(printed.encode())
    assert output_of(tail) == output


def test_of_much_the_last_line_is_the_output() -> None:
    tail = Tail(20)
    for _ in range(1000):
        tail.add(b"123\n")
    # What is kept is JSON by chance, and not what the command printed.
    tail.add(b"4\n5")
    assert tail.cut and output_of(tail) == 5
    short = Tail(2)
    short.add(b"\n17")
    assert short.text == "17" and output_of(short) == 17


def test_lines_come_whole_however_they_arrive_and_long_ones_in_pieces() -> None:
    lines: list[str] = []
    cut = Lines(lines.append, 8)
    for chunk in (b"on", b"e\ntw", "o ä".encode()[:-1], "ä".encode()[1:], b"\n\n  \n", b"0123456789", b"\nlast"):
        cut.add(chunk)
    cut.end()
    cut.end()
    assert lines == ["one", "two ä", "0123456789", "last"]


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("0.5 half of it", Report(0.5, "half of it")),
        ("1", Report(1.0, "")),
        (".25", Report(0.25, "")),
        ("50%\thalf", Report(0.5, "half")),
        ("- looking around", Report(None, "looking around")),
        ("-", Report(None, "")),
        ('{"fraction": 0.5, "note": "half"}', Report(0.5, "half")),
        ('{"note": 3}', Report(None, "3")),
        ('{"checkpoint": [7]}', Report(checkpoint=[7])),
        ('{"extend": 600}', Report(extend=600.0, of_progress=False)),
        ('{"fraction": 1, "extend": 600}', Report(1.0, extend=600.0)),
    ],
)
def test_reports_come_as_plain_lines_or_as_objects(line: str, report: Report) -> None:
    assert parsed(line) == report


@pytest.mark.parametrize(
    "line",
    [
        *(
            "half",
            "1.5 too far",
            "200%",
            "-0.5",
            "0.5half",
            "1e3",
            "{",
            "[0.5]",
            '{"fraction": "0.5"}',
            '{"fraction": true}',
        ),
        *('{"share": 0.5}', '{"fraction": NaN}', '{"fraction": 7}', '{"extend": "x"}', '{"fraction": 1e999}'),
    ],
)
def test_other_lines_mean_nothing(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is for a person
        parsed(line)

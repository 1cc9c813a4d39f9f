"""Which JSON text is accepted, decided without a database; tests/store/test_json_matches_jsonb.py asks PostgreSQL."""

from __future__ import annotations

import json

import pytest

from jobwire_server.domain.errors import DataTooLarge, InvalidArgument
from jobwire_server.domain.json_text import check_json

LIMIT = 65_536


def refusal(text: str, limit: int = LIMIT) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        check_json(text, "jobs[3].data", limit)
    [violation] = caught.value.violations
    assert violation.field == "jobs[3].data"
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        *("null", "true", "0", "-0", "1E5", "-1.5e-300", "1.7976931348623157e308", '""', "[]", "{}", " [ 1 ] \n"),
        *('{"a":1,"a":2}', '"\u2028\x7f"', r'"\/\b\f\n\r\t\"\\"', '"\U0001f600"', r'"\ud83d\ude00"'),
        *(r'"\\u0000"', r'"\\\\u0000"', r'"\ufffe"', '"u0000"'),
        *("1" * 308, "0." + "1" * 998, "1e-999", "1e000"),
        *("[" * 64 + "]" * 64, '{"a":' * 64 + "0" + "}" * 64, '"' + "[" * 99 + '"', r'"\"[[[' + "{" * 99 + '"'),
        *('"' + "1" * 5_000 + '"', '["1e99999"]'),
    ],
    ids=lambda text: f"{text[:20]!a}",
)
def test_accepted_and_returned_as_it_is(text: str) -> None:
    assert check_json(text, "data", LIMIT) is text
    json.loads(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1] 2", "not JSON"),
        ("NaN", "not JSON"),
        ("[-Infinity]", "not JSON"),
        (r'"\ud800"', "not JSON"),
        ("'a'", "not JSON"),
        ('"\x1f"', "not JSON"),
        (r'"\u0000"', r"\u0000, which PostgreSQL cannot store"),
        (r'{"\u0000":1}', r"\u0000"),
        (r'"\\\u0000"', r"\u0000"),
        (r'["\\", "x\u0000"]', r"\u0000"),
        ("[" * 65 + "]" * 65, "deeper than 64 levels"),
        ('[{"a":' * 33 + "0" + "}]" * 33, "deeper than 64 levels"),
        ("[0." + "1" * 1_000 + "]", "more than 1,000 digits"),
        ("[1e-1000]", "exponent beyond 999"),
        ("0E+01000", "exponent beyond 999"),
    ],
    ids=lambda text: f"{text[:20]!a}",
)
def test_refused_with_the_rule(text: str, words: str) -> None:
    assert words in refusal(text).message


@pytest.mark.parametrize("text", ["\ud800", '"\ud800"', '"\udfff\ud800"', '{"\udc00":1}'])
def test_lone_surrogates_of_python_are_refused_like_any_other_text(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize(
    ("text", "size"), [('"abc"', 5), ('"é"', 4), ('"\U0001f600"', 6), ("[[[[[[", 6)], ids=["ascii", "é", "emoji", "bad"]
)
def test_the_size_is_counted_in_bytes_of_utf8_before_anything_else(text: str, size: int) -> None:
    error = refusal(text, size - 1)
    assert isinstance(error, DataTooLarge) and error.reason == "DATA_TOO_LARGE"
    assert f"is {size} bytes, the queue allows {size - 1}" in error.message
    assert "store the content elsewhere" in error.message and "send its key" in error.message
    if text.endswith('"'):
        assert check_json(text, "data", size) is text


def test_what_is_said_of_a_bad_text_does_not_repeat_it() -> None:
    assert len(refusal("[" + "x" * 60_000).message) < 400


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    refusal("[" * 60_000, limit=100_000)
    refusal("[" * 60_000 + "]" * 60_000, limit=200_000)
    refusal('{"a":' * 20_000 + "0" + "}" * 20_000, limit=200_000)

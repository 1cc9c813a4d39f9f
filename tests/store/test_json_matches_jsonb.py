"""What the server takes for JSON and what `jsonb` takes are the same, but for documented exceptions.

Else a payload could be accepted that no SQL can look into, or a good one be refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from jobwire_server.domain.errors import InvalidArgument
from jobwire_server.domain.json_text import check_json
from tests.conftest import Postgres

LIMIT = 512 * 1024

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

# Texts.
Texts = st.SearchStrategy[str]
_ESCAPES = st.one_of(
    st.sampled_from(
        [r"\u0000", r"\\u0000", r"\ud800", r"\udc00", r"\ud83d\ude00", r"\ude00\ud83d", r"\uFFFF", r"\u00E9"]
    ),
    st.sampled_from([r"\n", r"\/", r"\\", r"\"", r"\b", r"\x", r"\u12", r"\U0041", "\\"]),
    st.integers(0, 0xFFFF).map(lambda code: f"\\u{code:04x}"),
)
_PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_STRINGS = st.lists(st.one_of(_PLAIN, _ESCAPES), max_size=4).map(lambda parts: '"' + "".join(parts) + '"')
_GOOD_STRINGS = st.builds(
    json.dumps, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), ensure_ascii=st.booleans()
)
_DIGITS = st.one_of(
    st.integers(0, 10**20).map(str), st.sampled_from(["0", "00", "01", "9" * 308, "9" * 309, "1" * 1_000])
)
_NUMBERS = st.tuples(
    st.sampled_from(["", "", "-", "+", "--"]),
    _DIGITS,
    st.one_of(st.just(""), st.just("."), _DIGITS.map(lambda digits: "." + digits)),
    st.one_of(
        st.just(""),
        st.tuples(st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 400).map(str)).map("".join),
        st.sampled_from(
            ["e", "e+", "E-", "e00000", "e-000001", "e308", "e-999", "e-16384", "e131072", "e999999999999"]
        ),
    ),
).map("".join)
_GOOD_NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)).map(json.dumps)
_WORDS = st.sampled_from(["null", "true", "false"])
_BAD_WORDS = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "nul", "True", "undefined", "", "'a'", "/**/1", "\ufeff1"]
)
_SPACE = st.text(" \t\r\n", max_size=2)
_BAD_SPACE = st.sampled_from(["\u00a0", "\f", "\v", "\0", "\u2028", "\u3000", "//\n"])


def _spaced(text: Texts, space: Texts) -> Texts:
    return st.tuples(space, text, space).map("".join)


def _documents(strings: Texts, scalars: Texts, space: Texts) -> Texts:
    def nest(inner: Texts) -> Texts:
        pairs = st.tuples(_spaced(strings, space), inner).map(":".join)
        return st.one_of(
            st.lists(inner, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]"),
            st.lists(pairs, max_size=4).map(lambda parts: "{" + ",".join(parts) + "}"),
            st.tuples(inner, st.integers(60, 68)).map(lambda part: "[" * part[1] + part[0] + "]" * part[1]),
        )

    return st.recursive(_spaced(st.one_of(strings, scalars), space), nest, max_leaves=8)


GOOD = _documents(_GOOD_STRINGS, st.one_of(_GOOD_NUMBERS, _WORDS), _SPACE)
NASTY = _documents(
    st.one_of(_GOOD_STRINGS, _STRINGS),
    st.one_of(_GOOD_NUMBERS, _NUMBERS, _WORDS, _BAD_WORDS),
    st.one_of(_SPACE, _SPACE, _SPACE, _BAD_SPACE),
)
_CUTS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.text('[]{},:"\\u0dDeE+-. 1tn\0\x1f\x7f', max_size=3)),
    min_size=1,
    max_size=3,
)


def _spoilt(text: str, cuts: list[tuple[float, int, str]]) -> str:
    for where, length, instead in cuts:
        at = int(where * len(text))
        text = text[:at] + instead + text[at + length :]
    return text


TEXTS = st.one_of(GOOD, NASTY, st.builds(_spoilt, st.one_of(GOOD, NASTY), _CUTS), st.text(max_size=20))


# Judges.
@pytest.fixture(scope="module")
def connection(postgres: Postgres) -> Iterator[psycopg.Connection[tuple[str]]]:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        assert connection.info.encoding == "utf-8"
        yield connection


def postgresql_takes(connection: psycopg.Connection[tuple[str]], text: str) -> bool:
    try:
        connection.execute("SELECT %s::text::jsonb", [text], prepare=True)
    except psycopg.DataError:
        return False
    except psycopg.errors.StatementTooComplex:
        return False
    return True


def server_takes(text: str) -> bool:
    try:
        assert check_json(text, "data", LIMIT) is text
    except InvalidArgument:
        return False
    return True


def documented(text: str) -> bool:
    """Whether the server may refuse a text that `jsonb` takes: for its depth, or for a number that few can read."""
    bare = _STRING.sub('""', text)
    depth = deepest = 0
    for character in bare:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    return deepest > 64 or any(
        len(re.sub("[^0-9]", "", number)) >= 1_000
        or re.search(r"[eE][+-]?[0-9]{4,}", number)
        or math.isinf(float(number))
        for number in _NUMBER.findall(bare)
    )


@settings(
    max_examples=1_500,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(text=TEXTS)
@example(text="")
@example(text='"\\u0000"')
@example(text='{"\\\\u0000": "\\\\\\u0000"}')
@example(text='"\U0001f600"')
@example(text="1e308")
@example(text="-1.7976931348623159e308")
@example(text="1e-400")
@example(text="0e400")
@example(text="1" * 999)
@example(text="0." + "0" * 997 + "1")
@example(text="1e-16383")
@example(text="1e-16384")
@example(text='[{"a": -0.5E-0099999}]')
@example(text="0." + "1" * 16_384)
@example(text="0e99999")
@example(text='{"a":1,"a":[]}')
@example(text="[" * 64 + "]" * 64)
@example(text="\x0c1")
@example(text='"\x7f\x80"')
def test_the_server_and_jsonb_agree(connection: psycopg.Connection[tuple[str]], text: str) -> None:
    server, postgresql = server_takes(text), postgresql_takes(connection, text)
    event(f"server {server}, PostgreSQL {postgresql}")
    if server:
        assert postgresql, "accepted, and no SQL can look into it"
    elif postgresql:
        assert documented(text), "a good text is refused"


@settings(max_examples=300, deadline=None)
@given(text=GOOD)
def test_what_is_plainly_good_is_taken(connection: psycopg.Connection[tuple[str]], text: str) -> None:
    assert documented(text) or (server_takes(text) and postgresql_takes(connection, text))

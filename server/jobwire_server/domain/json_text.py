r"""Which JSON text is accepted: what PostgreSQL's `jsonb` accepts, so that every payload can be looked at in SQL.

RFC 8259 without what jsonb cannot hold: no NaN or Infinity, no `\u0000`, no lone surrogate, no number beyond `numeric`,
no nesting deeper than the limit. The text is kept exactly, it is parsed only to be checked.
"""

from __future__ import annotations

import re

import orjson

from . import limits
from .errors import DataTooLarge, FieldViolation, InvalidArgument

_SHAPE = bytes.maketrans(b"123456789.E+[: \t\n\r", b"0000000000e-,,,,,,")
_LONG_NUMBER = re.compile(rb",-?0(?:0{999}|0*e-?0000)")
_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(r"[\[\]{}]")


def check_json(text: str, at: str, max_bytes: int) -> str:
    """Returns `text`, or raises InvalidArgument (DataTooLarge) that names the field `at` and what is wrong with it."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise DataTooLarge(at, size, max_bytes)
    problem = _problem(text)
    if problem is not None:
        raise InvalidArgument(FieldViolation(at, problem))
    return text


def _problem(text: str) -> str | None:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return f"is not JSON: {str(error)[:200]}"
    if text.count("[") + text.count("{") > limits.JSON_DEPTH and _depth(text) > limits.JSON_DEPTH:
        return f"is nested deeper than {limits.JSON_DEPTH} levels"
    if r"\u0000" in text and _NUL_ESCAPE.search(text):
        return r"contains \u0000, which PostgreSQL cannot store; remove it"
    if _may_hold_long_number(text) and re.search(r"[eE][+-]?[0-9]{4,}|[0-9]{1000,}", _STRING.sub("", text)):
        return "contains a number with more than 1,000 digits or an exponent beyond 999; send it as a string"
    return None


def _may_hold_long_number(text: str) -> bool:
    """Whether a closer look is needed: every payload is read whole for this, so it is made to be fast.

    Every digit becomes 0, and whatever can stand before a number a comma, which the search leaps to. What looks like
    one in a string (any hash has some) hardly ever stands behind one.
    """
    return _LONG_NUMBER.search(f",{text}".encode().translate(_SHAPE)) is not None


def _depth(text: str) -> int:
    deepest = depth = 0
    for bracket in _BRACKETS.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest

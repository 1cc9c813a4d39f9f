"""Requests that nobody should send: well-formed messages of wild values, and messages with damaged bytes.

A wild message is not noise, which would be refused at its first field. Most of its fields hold something that fits, in
some messages all, so that what is behind the checks is reached; `Live` puts handles and sessions that exist in place of
placeholders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

QUEUES = ("fuzz", "fuzz-2", "Other_Queue")
IDS = tuple(str(UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + n)) for n in range(6))
KEYS = ("red", "green", "a key of \U0001f600")
"""Few, so that jobs of a key meet."""
HANDLES = tuple(f"<handle {n}>" for n in range(4))
SESSIONS = tuple(f"<session {n}>" for n in range(2))
JSON = ("null", "{}", '{"a": [1, 2.5e-3, true, "é"]}', "[" * 64 + "]" * 64, '"' + "x" * 60_000 + '"')
BAD_JSON = ("[" * 70, "1e400", '"' + "x" * 70_000 + '"', r'"\u0000"', r'"\ud800"', "NaN", "1" * 2_000)
CRON_LINES = ("0 3 * * *", "*/5 * * * MON-FRI", "30 0 3 29 2 *", "* * * * * *")
NASTY = (
    "",
    " ",
    "\0",
    "a\0b",
    "a:b",
    "a.b",
    "é",
    "\U0001f600",
    "\u202e",
    "%s%n",
    "'; DROP TABLE job; --",
    "x" * 5_000,
    *BAD_JSON,
)

_FITTING: dict[str, Sequence[str]] = {
    "queue": QUEUES,
    "queues": QUEUES,
    "dead_letter": QUEUES,
    "key": KEYS,
    "tier": KEYS,
    "name": QUEUES,
    "id": IDS,
    "job_id": IDS,
    "job_ids": IDS,
    "handle": HANDLES,
    "held": HANDLES,
    "session_id": SESSIONS,
    "ids": IDS,
    "destination": QUEUES,
    "page_token": (*IDS, *[""] * 6),
    "confirmation": ("", "", "", "x"),
    "data_contains": JSON,
    "line": CRON_LINES,
    "time_zone": ("", "UTC", "Europe/Berlin", "Australia/Lord_Howe"),
    "known_revision": ("1.1.0", "2.1.1", "3"),
    "data": JSON,
    "output": JSON,
    "checkpoint": JSON,
}
"""What fits into a field of text, by its name; others take any."""

_BITS = {FieldDescriptor.TYPE_INT32: 32, FieldDescriptor.TYPE_INT64: 64, FieldDescriptor.TYPE_ENUM: 32}
_SECONDS = (0, 1, 5, 60, 86_400, 604_800, 604_801, 1_800_000_000, 253_402_300_799, 2**62, -1, -(2**63), 2**63 - 1)
_NANOS = (0, 0, 0, 1, 999_999_999, 10**9, -1, -999_999_999, 2**31 - 1, -(2**31))
_MOST = 4
"""How many entries a list or map has at most."""


def _texts(name: str, *, odd: bool) -> st.SearchStrategy[str]:
    if odd:
        return st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
    return st.sampled_from(_FITTING[name]) if name in _FITTING else st.text("abcé -_/", min_size=1, max_size=20)


def _numbers(of: FieldDescriptor, *, odd: bool) -> st.SearchStrategy[int]:
    if odd:
        least, most = -(2 ** (_BITS[of.type] - 1)), 2 ** (_BITS[of.type] - 1) - 1
        edges = st.sampled_from([0, 1, -1, 1_000, 1_001, 32_767, 32_768, least, most])
        return st.one_of(edges, st.integers(-70, 70), st.integers(least, most))
    if of.name == "max_data_bytes":
        return st.integers(60_002, 524_288)
    if of.name == "max_depth":
        return st.sampled_from([0, 1_000_000])
    if of.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([value.number for value in of.enum_type.values if value.number])
    return st.integers(1, 70)


def _values(of: FieldDescriptor, oddity: int, *, odd: bool) -> st.SearchStrategy[Any]:
    if of.type == FieldDescriptor.TYPE_MESSAGE:
        return _of_kind(of.message_type, oddity, odd=odd)
    if of.type == FieldDescriptor.TYPE_STRING:
        return _texts(of.name, odd=odd)
    if of.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if of.type == FieldDescriptor.TYPE_DOUBLE:
        return st.one_of(st.floats(), st.sampled_from([math.nan, math.inf, -0.0])) if odd else st.floats(0, 1)
    return _numbers(of, odd=odd)


def messages(kind: Descriptor) -> st.SearchStrategy[Message]:
    """A wild message of a kind. In some no value is odd, in most one or another, in some many."""
    return st.sampled_from([0, 0, 20, 20, 6, 2]).flatmap(lambda oddity: _of_kind(kind, oddity))


@st.composite
def _of_kind(draw: st.DrawFn, kind: Descriptor, oddity: int, *, odd: bool = False) -> Message:
    """A message in which one field in `oddity` holds an odd value; 0: none."""
    if kind.full_name == "google.protobuf.Timestamp" and not odd:
        return kind._concrete_class(seconds=draw(st.integers(1_700_000_000, 1_800_000_000)))
    if kind.full_name in ("google.protobuf.Duration", "google.protobuf.Timestamp"):
        if not odd:
            return kind._concrete_class(seconds=draw(st.integers(1, 15)))
        return kind._concrete_class(seconds=draw(st.sampled_from(_SECONDS)), nanos=draw(st.sampled_from(_NANOS)))
    message: Message = kind._concrete_class()
    chosen = {draw(st.sampled_from([member.name for member in oneof.fields])) for oneof in kind.oneofs}
    for of in kind.fields:
        if (of.containing_oneof is not None and of.name not in chosen) or not draw(st.integers(0, 5)):
            continue
        odd = bool(oddity) and not draw(st.integers(0, oddity - 1))
        if _is_map(of):
            texts = _texts(of.name, odd=odd)
            values = _values(of.message_type.fields_by_name["value"], oddity, odd=odd)
            getattr(message, of.name).update(draw(st.dictionaries(texts, values, max_size=_MOST)))
        elif of.is_repeated:
            values = _values(of, oddity, odd=odd)
            getattr(message, of.name).extend(draw(st.lists(values, min_size=1, max_size=_MOST)))
        elif of.message_type is not None:
            getattr(message, of.name).CopyFrom(draw(_values(of, oddity, odd=odd)))
        else:
            setattr(message, of.name, draw(_values(of, oddity, odd=odd)))
    _leave_to_schedule(message)
    return message


def _leave_to_schedule(message: Message) -> None:
    """A schedule's jobs have ids and times of their own."""
    if message.DESCRIPTOR.name == "Schedule" and message.HasField("job"):
        for name in ("id", "start_after", "start_in"):
            message.job.ClearField(name)


def _is_map(of: FieldDescriptor) -> bool:
    return of.message_type is not None and of.message_type.GetOptions().map_entry


_BITE = st.tuples(
    st.sampled_from(["flip", "set", "insert", "drop", "double", "cut", "number"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
)


def bites() -> st.SearchStrategy[list[tuple[str, float, int]]]:
    """What is done to the bytes of a message, step by step."""
    return st.lists(_BITE, min_size=1, max_size=6)


def bitten(body: bytes, steps: Sequence[tuple[str, float, int]]) -> bytes:
    """The bytes after the steps: each names what is done, where (a share of the length) and with which byte."""
    for what, where, byte in steps:
        at = int(where * len(body))
        rest, length = body[at:], 1 + byte % 16
        body = (
            body[:at]
            + {
                "flip": bytes([rest[0] ^ (1 << byte % 8)]) + rest[1:] if rest else b"",
                "set": bytes([byte]) + rest[1:],
                "insert": bytes([byte]) * length + rest,
                "drop": rest[length:],
                "double": rest[:length] + rest,
                "cut": b"",
                # A number of up to nine bytes in place of a small one: a tag, a length or a value.
                "number": b"\xff" * (byte % 9) + bytes([byte & 0x7F]) + rest[1:],
            }[what]
        )
    return body


@dataclass(slots=True)
class Live:
    """Handles and sessions that exist at the moment."""

    handles: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)

    def fill(self, message: Message) -> None:
        """Puts what exists in place of the placeholders."""
        for of, value in message.ListFields():
            if of.type == FieldDescriptor.TYPE_MESSAGE and not _is_map(of):
                for part in value if of.is_repeated else [value]:
                    self.fill(part)
            elif of.type == FieldDescriptor.TYPE_STRING and of.is_repeated:
                value[:] = map(self._real, value)
            elif of.type == FieldDescriptor.TYPE_STRING:
                setattr(message, of.name, self._real(value))

    def _real(self, text: str) -> str:
        if not (placeholder := re.fullmatch(r"<(handle|session) (\d)>", text)):
            return text
        real = self.handles if placeholder[1] == "handle" else self.sessions
        return real[int(placeholder[2]) % len(real)] if real else IDS[0]

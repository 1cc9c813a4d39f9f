"""Checks of single fields: each returns the value in the domain's form, or raises InvalidArgument with path and rule.

Durations become milliseconds, rounded up, so that a pause that was asked for never turns into none.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire_server.domain import limits
from jobwire_server.domain.errors import FieldViolation, InvalidArgument

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NANOS = 999_999_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1, _YEAR_9999 = -62_135_596_800, 253_402_300_799
_UNITS = ((limits.DAY, "day"), (3_600 * limits.SECOND, "hour"), (60 * limits.SECOND, "minute"))


def broken(at: str, rule: str) -> InvalidArgument:
    """The error for one field that breaks one rule."""
    return InvalidArgument(FieldViolation(at, rule))


def path(at: str, name: str) -> str:
    """The path of the field `name` of the message at `at`; empty is the request itself."""
    return f"{at}.{name}" if at else name


def whole(value: int, at: str, least: int, most: int) -> int:
    """A number within bounds, both included."""
    if not least <= value <= most:
        raise broken(at, f"must be {least:,} to {most:,}; got {value:,}")
    return value


def optional_whole(message: Message, name: str, at: str, least: int, most: int) -> int | None:
    """A number within bounds; None if the field is absent."""
    return whole(getattr(message, name), path(at, name), least, most) if message.HasField(name) else None


def count(length: int, at: str, least: int, most: int) -> None:
    """The length of a list or map."""
    if not least <= length <= most:
        raise broken(at, f"must have {least:,} to {most:,} entries; got {length:,}")


def total_size(size: int, at: str) -> None:
    """What a request may hold in all."""
    if size > limits.REQUEST_BYTES:
        limit = limits.REQUEST_BYTES
        raise broken(at, f"hold {size:,} bytes with the rest of the request, allowed are {limit:,}; split the call")


def uuid(text: str, at: str) -> UUID:
    """A UUID in its form of 36 characters."""
    if not _UUID.fullmatch(text):
        raise broken(at, f"must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057; got {text[:80]!r}")
    return UUID(text)


def plain_text(text: str, at: str, most: int) -> str:
    """A text of at most `most` characters that PostgreSQL can store."""
    if len(text) > most:
        raise broken(at, f"must have at most {most:,} characters; got {len(text):,}")
    if "\0" in text:
        raise broken(at, "contains a NUL character, which PostgreSQL cannot store; remove it")
    return text


def cut_text(text: str, most: int) -> str:
    """At most `most` characters of a text that is for people only, with NUL, which cannot be stored, made visible."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= most else text[: most - 1] + "…"


def cut_bytes(text: str, most: int) -> str:
    """As `cut_text`, at most `most` bytes in UTF-8."""
    text = cut_text(text, most)
    encoded = text.encode()
    return text if len(encoded) <= most else encoded[: most - 3].decode(errors="ignore") + "…"


def duration_ms(value: Duration, at: str, least: int, most: int) -> int:
    """A duration within bounds, both included and in milliseconds."""
    if abs(value.nanos) > _NANOS or value.seconds * value.nanos < 0:
        raise broken(at, "is no valid Duration: `nanos` must be within ±999,999,999 and have the sign of `seconds`")
    nanos = value.seconds * 1_000_000_000 + value.nanos
    if not least * 1_000_000 <= nanos <= most * 1_000_000:
        raise broken(at, f"must be {span(least)} to {span(most)}; got {nanos / 1e9:,.9g} s")
    return -(-nanos // 1_000_000)


def optional_duration_ms(message: Message, name: str, at: str, least: int, most: int) -> int | None:
    """A duration within bounds; None if the field is absent."""
    return duration_ms(getattr(message, name), path(at, name), least, most) if message.HasField(name) else None


def timestamp(value: Timestamp, at: str, most_ahead: int) -> datetime:
    """A point in time, at most `most_ahead` milliseconds from now."""
    if not 0 <= value.nanos <= _NANOS or not _YEAR_1 <= value.seconds <= _YEAR_9999:
        raise broken(at, "is no valid Timestamp: `nanos` must be 0 to 999,999,999 and the year 1 to 9999")
    moment = _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1_000)
    if moment > datetime.now(UTC) + timedelta(milliseconds=most_ahead):
        raise broken(at, f"must be at most {span(most_ahead)} ahead; got {moment:%Y-%m-%d %H:%M:%S} UTC")
    return moment


def span(ms: int) -> str:
    """A duration for people, such as `15 minutes`."""
    for size, name in _UNITS:
        if ms and ms % size == 0:
            return f"{ms // size:,} {name}{'' if ms == size else 's'}"
    return f"{ms:,} ms" if ms % limits.SECOND else f"{ms // limits.SECOND:,} s"

"""Between Python values and what travels: JSON text, spans, points in time, ids.

Spans are given as seconds or timedelta and read back as seconds; points in time always carry UTC.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import uuid_utils
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

MAX_DATA_BYTES = 512 * 1024
"""The largest payload or output that any queue can allow."""

MAX_CHECKPOINT_BYTES = 64 * 1024
"""The largest checkpoint."""

MAX_CALL_BYTES = 3 * 1024 * 1024 - 4096
"""What one Publish or Ack call may carry in all, less its own frame."""

MAX_CALL_ITEMS = 1000
"""How many jobs or statements one Publish or Ack call may carry."""

Seconds = float | timedelta
"""A span: seconds, or a timedelta."""


class TooLargeError(ValueError):
    """A payload, an output or a checkpoint is larger than is ever allowed."""


# Made once: `json.dumps` with options of its own makes an encoder for each call.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def new_job_id() -> str:
    """Return a new UUID of version 7: unique anywhere, and sorted by time."""
    return str(uuid_utils.uuid7())


def to_json(value: Any, limit: int = MAX_DATA_BYTES) -> str:
    """Return `value` as compact JSON text of at most `limit` bytes.

    Raises ValueError, with advice, for what JSON or Jobwire cannot carry.
    """
    try:
        text = _encode(value)
        size = len(text) if text.isascii() else len(text.encode())
    except TypeError as error:
        raise ValueError(f"not JSON: {error}; turn it into dict, list, str, int, float, bool or None first") from error
    except UnicodeEncodeError as error:
        raise ValueError("not JSON: a string holds half a surrogate pair, which is no Unicode text") from error
    except RecursionError as error:
        raise ValueError("not JSON: nested too deeply; at most 64 levels are taken") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}; no NaN, no infinity, no value that contains itself") from error
    if size > limit:
        raise TooLargeError(
            f"{size} bytes of JSON, but at most {limit} are taken: "
            "store the content elsewhere (object storage, a table) and send its key"
        )
    return text


def from_json(text: str) -> Any:
    """Decode JSON text; the empty text, which means that nothing was given, is None."""
    return json.loads(text) if text else None


def clean_text(text: str, limit: int) -> str:
    """Make any string one that travels: valid Unicode without NUL, at most `limit` characters."""
    return text[:limit].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def in_seconds(span: Seconds) -> float:
    """Return a span as seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


def to_duration(span: Seconds) -> Duration:
    """Turn a span into a protobuf Duration; raises ValueError for what is no finite span."""
    try:
        delta = span if isinstance(span, timedelta) else timedelta(seconds=span)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{span!r} is no span of time: give seconds or a timedelta") from error
    duration = Duration()
    duration.FromTimedelta(delta)
    return duration


def from_duration(duration: Duration) -> float:
    """Return a protobuf Duration as seconds."""
    return duration.seconds + duration.nanos / 1e9


def to_timestamp(moment: datetime) -> Timestamp:
    """Turn a datetime with a time zone into a protobuf Timestamp."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: use datetime.now(UTC), or moment.astimezone() for local time")
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def from_timestamp(timestamp: Timestamp) -> datetime:
    """Return a protobuf Timestamp as a datetime in UTC."""
    return timestamp.ToDatetime(UTC)

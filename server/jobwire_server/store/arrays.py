"""Array parameters in PostgreSQL's binary format, each with a fixed element type.

psycopg dumps a list element by element and picks the integer type by the values, so that one statement would be
prepared many times. These dump in one go and always as the same type. None becomes NULL. The format is that of
PostgreSQL's `array_send`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from psycopg.abc import AdaptContext
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_NULL = b"\xff\xff\xff\xff"
_SIXTEEN = b"\0\0\0\x10"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Array:
    """A dumped array: bytes ready to be sent, and what they are an array of."""

    __slots__ = ("data",)
    element_oid: int
    array_oid: int

    def __init__(self, count: int, nulls: bool, body: bytes) -> None:
        head = (
            struct.pack("!iiI", 1, nulls, self.element_oid) + struct.pack("!ii", count, 1)
            if count
            else struct.pack("!iiI", 0, 0, self.element_oid)
        )
        self.data = head + body


class _Bool(_Array):
    element_oid, array_oid = 16, 1000


class _Int4(_Array):
    element_oid, array_oid = 23, 1007


class _Int8(_Array):
    element_oid, array_oid = 20, 1016


class _Text(_Array):
    element_oid, array_oid = 25, 1009


class _Timestamp(_Array):
    element_oid, array_oid = 1184, 1185


class _Uuid(_Array):
    element_oid, array_oid = 2950, 2951


A = TypeVar("A", bound=_Array)
T = TypeVar("T")


def _build(kind: type[A], values: Iterable[T | None], dump: Callable[[T], bytes]) -> A:
    parts = [_NULL if value is None else dump(value) for value in values]
    return kind(len(parts), _NULL in parts, b"".join(parts))


def bools(values: Iterable[bool | None]) -> _Bool:
    """`bool[]`."""
    return _build(_Bool, values, lambda v: b"\0\0\0\x01\x01" if v else b"\0\0\0\x01\0")


def int4s(values: Iterable[int]) -> _Int4:
    """`int4[]`."""
    parts = list(map(_int4, values))
    return _Int4(len(parts), False, b"".join(parts))


@lru_cache(maxsize=4_096)
def _int4(value: int) -> bytes:
    return struct.pack("!ii", 4, value)


def int8s(values: Iterable[int | None]) -> _Int8:
    """`int8[]`."""
    pack = struct.Struct("!iq").pack
    return _build(_Int8, values, lambda v: pack(8, v))


def texts(values: Iterable[str | None]) -> _Text:
    """`text[]`."""

    def dump(value: str) -> bytes:
        raw = value.encode()
        return len(raw).to_bytes(4, "big") + raw

    return _build(_Text, values, dump)


def timestamps(values: Iterable[datetime | None]) -> _Timestamp:
    """`timestamptz[]`, of aware datetimes."""
    pack = struct.Struct("!iq").pack
    return _build(_Timestamp, values, lambda v: pack(8, (v - _EPOCH) // _MICROSECOND))


def uuids(values: Iterable[UUID]) -> _Uuid:
    """`uuid[]`."""
    return raw_uuids([value.bytes for value in values])


def raw_uuids(values: Sequence[bytes]) -> _Uuid:
    """`uuid[]`, of 16 bytes each."""
    return _Uuid(len(values), False, b"".join([_SIXTEEN + value for value in values]))


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Array) -> Buffer:
        return obj.data


def register(context: AdaptContext) -> None:
    """Teaches a connection to send the arrays of this module."""
    for kind in (_Bool, _Int4, _Int8, _Text, _Timestamp, _Uuid):
        dumper: Any = type(f"{kind.__name__}Dumper", (_ArrayDumper,), {"oid": kind.array_oid})
        context.adapters.register_dumper(kind, dumper)

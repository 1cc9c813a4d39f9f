"""Messages put together from encoded parts, where there is a part for each job.

Protobuf's encoding is made for that: a message is its fields one after the other, whatever their order, and parts that
are put behind each other merge. So what many jobs have in common is encoded once, and the message is read from the
whole in C, in a fraction of the time that a Python object for each job takes.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from google.protobuf.message import Message

_LENGTH_DELIMITED = 2


def field(message: type[Message], name: str) -> bytes:
    """What announces a field of a message that holds text or another message; its length follows, then its bytes."""
    return _varint(message.DESCRIPTOR.fields_by_name[name].number << 3 | _LENGTH_DELIMITED)


def sized(body: bytes) -> bytes:
    """The bytes of a text or a message, behind their length."""
    size = len(body)
    return (_SIZES[size] if size < len(_SIZES) else _varint(size)) + body


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_SIZES = [_varint(size) for size in range(4_096)]

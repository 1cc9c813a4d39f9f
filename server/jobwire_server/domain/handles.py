"""The delivery handle: one opaque string that names a queue, a job, a claim's random token and the place in the claim.

Text form: base64url, without padding, of version (1 byte), place (2 bytes, big endian, from 1), token (16), job id
(16), queue (ASCII). A handle proves nothing by its form; the database decides whether its lease is valid.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache
from typing import Self
from uuid import UUID

from . import limits

_VERSION = b"\x01"
_PREFIX = 1 + 2 + 16 + 16
_NAME = re.compile(limits.QUEUE_NAME.encode())
_TO_TEXT = bytes.maketrans(b"+/", b"-_")
_FROM_TEXT = bytes.maketrans(b"-_+/", b"+/\0\0")


class Handle(bytes):
    """Names one delivery. It is its bytes: made, compared and looked up as often as there are jobs."""

    __slots__ = ()

    def __new__(cls, queue: str, job_id: UUID, token: UUID, place: int) -> Self:
        """The handle of a delivery."""
        return cls.joined(queue.encode("ascii"), job_id.bytes, token.bytes, place)

    @classmethod
    def joined(cls, queue: bytes, job_id: bytes, token: bytes, place: int) -> Self:
        """As `Handle(…)`, of what is bytes already."""
        return bytes.__new__(cls, b"".join((_VERSION, place.to_bytes(2, "big"), token, job_id, queue)))

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self[_PREFIX:].decode("ascii")

    @property
    def queue_bytes(self) -> bytes:
        """The queue's name in ASCII: cheaper, where it is compared only."""
        return self[_PREFIX:]

    @property
    def place(self) -> int:
        """The place in the claim, from 1."""
        return int.from_bytes(self[1:3], "big")

    @property
    def token_bytes(self) -> bytes:
        """The claim's token, as 16 bytes."""
        return self[3:19]

    @property
    def job_id_bytes(self) -> bytes:
        """The job's id, as 16 bytes, which sort as ids do."""
        return self[19:35]

    @property
    def job_id_text(self) -> bytes:
        """The job's id in its form of 36 characters."""
        digits = binascii.hexlify(self[19:35])
        return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    @property
    def text(self) -> bytes:
        """The text form."""
        return binascii.b2a_base64(self, newline=False).translate(_TO_TEXT, b"=")

    @property
    def token(self) -> UUID:
        """The claim's token."""
        return UUID(bytes=self[3:19])

    @property
    def job_id(self) -> UUID:
        """The job's id."""
        return UUID(bytes=self[19:35])

    def __str__(self) -> str:
        return self.text.decode("ascii")

    def __repr__(self) -> str:
        return f"Handle({self.queue!r}, {self.job_id!r}, {self.token!r}, {self.place})"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The handle that `text` spells, or None if no server can have made it."""
        try:
            padded = text.encode("ascii").translate(_FROM_TEXT) + b"=" * (-len(text) % 4)
            handle = bytes.__new__(cls, binascii.a2b_base64(padded, strict_mode=True))
        except (ValueError, binascii.Error):
            return None
        well_formed = handle[:1] == _VERSION and handle[1:3] != b"\0\0" and _is_name(handle[_PREFIX:])
        # base64 has several spellings of the same bytes, which differ in the last of them; a handle has one.
        return handle if well_formed and handle.text[-1:] == text[-1:].encode() else None


@lru_cache(maxsize=1_024)
def _is_name(queue: bytes) -> bool:
    return _NAME.fullmatch(queue) is not None

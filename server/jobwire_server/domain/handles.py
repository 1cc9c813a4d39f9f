"""The delivery handle: one opaque string that names a queue, a job, a claim's random token and the place in the claim.

Text form: base64url, without padding, of version (1 byte), place (2 bytes, big endian, from 1), token (16), job id
(16), queue (ASCII). A handle proves nothing by its form; the database decides whether its lease is valid.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from uuid import UUID

from . import limits

_VERSION = 1
_PREFIX = 1 + 2 + 16 + 16
_NAME = re.compile(limits.QUEUE_NAME.encode())


@dataclass(frozen=True, slots=True)
class Handle:
    """Names one delivery."""

    queue: str
    job_id: UUID
    token: UUID
    place: int

    def __str__(self) -> str:
        raw = (
            bytes([_VERSION])
            + self.place.to_bytes(2, "big")
            + self.token.bytes
            + self.job_id.bytes
            + self.queue.encode("ascii")
        )
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")

    @classmethod
    def parse(cls, text: str) -> Handle | None:
        """The handle that `text` spells, or None if no server can have made it."""
        try:
            raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        queue = raw[_PREFIX:]
        if len(raw) <= _PREFIX or raw[0] != _VERSION or not _NAME.fullmatch(queue):
            return None
        place = int.from_bytes(raw[1:3], "big")
        if place == 0:
            return None
        handle = cls(queue.decode("ascii"), UUID(bytes=raw[19:35]), UUID(bytes=raw[3:19]), place)
        # base64 has several spellings of the same bytes; a handle has one.
        return handle if str(handle) == text else None

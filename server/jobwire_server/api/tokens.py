"""Texts that a client carries from one call to the next: opaque to it, and believed as far as they can be checked.

A token is bound to what it was given for (`about`, a digest of the request). It is no secret and no permission: it
keeps people from mistakes, and whoever may call may make one up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.message import Message

from jobwire_server.api.fields import broken

_COUNT_MAX = 2**53
_LENGTH_MAX = 2_000


def digest(message: Message) -> str:
    """What a request is about, in short."""
    said = f"{message.DESCRIPTOR.full_name}:".encode() + message.SerializeToString(deterministic=True)
    return hashlib.sha256(said).hexdigest()[:24]


def write(about: str, **facts: object) -> str:
    """A token."""
    return base64.urlsafe_b64encode(orjson.dumps({"about": about, **facts})).decode().rstrip("=")


def read(text: str, at: str) -> Mapping[str, Any]:
    """What a token says; InvalidArgument if it is none."""
    try:
        facts = orjson.loads(base64.b64decode(text[:_LENGTH_MAX] + "=" * (-len(text) % 4), "-_", validate=True))
    except (ValueError, binascii.Error):
        facts = None
    if not isinstance(facts, dict) or not isinstance(facts.get("about"), str):
        raise broken(at, "is no token that Jobwire gave")
    return facts


def number(facts: Mapping[str, Any], name: str, at: str) -> int:
    """A count that a token holds."""
    value = facts.get(name)
    if type(value) is not int or not 0 <= value <= _COUNT_MAX:
        raise broken(at, "is no token that Jobwire gave for such a call")
    return value


def optional_number(facts: Mapping[str, Any], name: str, at: str) -> int | None:
    """A count that a token may hold."""
    return None if facts.get(name) is None else number(facts, name, at)

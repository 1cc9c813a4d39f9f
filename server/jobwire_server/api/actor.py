"""Who makes a call, as far as it says: for the record of what operators do. Nothing is permitted by it."""

from __future__ import annotations

from typing import Any

import grpc.aio

from jobwire_server.api.fields import cut_text

ACTOR = "x-jobwire-actor"
"""Metadata in which a call may say for whom it is made: a person, or a program."""

_LENGTH = 200


def actor_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """What the call's metadata says; else the program that it comes from, and its address."""
    told = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    said = told.get(ACTOR, "").strip()
    return cut_text(said or f"{told.get('user-agent', 'unknown')} at {context.peer()}", _LENGTH)

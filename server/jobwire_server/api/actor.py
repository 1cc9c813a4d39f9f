"""Who makes a call, as far as it says, and by whose token: for the record of what operators do."""

from __future__ import annotations

from typing import Any

import grpc.aio

from jobwire_server.api.calls import this_call
from jobwire_server.api.fields import cut_text

ACTOR = "x-jobwire-actor"
"""Metadata in which a call may say for whom it is made: a person, or a program."""

_LENGTH = 200


def actor_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """What the call's metadata says, and the name of its token; without either, the program and its address."""
    told = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    said = told.get(ACTOR, "").strip()
    if caller := this_call().caller:
        # What a call says of itself may be made up; the token is known.
        by_token = f" (token {caller})"
        return cut_text(said, _LENGTH - len(by_token)) + by_token if said else caller
    return cut_text(said or f"{told.get('user-agent', 'unknown')} at {context.peer()}", _LENGTH)

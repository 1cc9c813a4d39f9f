"""Fields of a request that this server does not know, as a client sends them that is newer than the server.

Protobuf passes over them, and a job would be stored without the rule that somebody gave it: it is refused instead.
"""

from __future__ import annotations

import functools

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from jobwire_server.api.fields import path
from jobwire_server.domain.errors import UnknownField


def refuse_unknown_fields(message: Message, at: str = "") -> None:
    """Raise UnknownField for the first field of a message, or of one inside it, that its type does not have."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise UnknownField(at, unknown[0].field_number)
    for name, repeated in _parts(message.DESCRIPTOR):
        if repeated:
            for place, part in enumerate(getattr(message, name)):
                refuse_unknown_fields(part, f"{path(at, name)}[{place}]")
        elif message.HasField(name):
            refuse_unknown_fields(getattr(message, name), path(at, name))


@functools.cache
def _parts(kind: Descriptor) -> tuple[tuple[str, bool], ...]:
    """The fields of a type that hold messages of ours, and whether each is a list. Protobuf's own types do not grow."""
    return tuple(
        (field.name, field.is_repeated)
        for field in kind.fields
        if (inner := field.message_type) is not None
        and not inner.full_name.startswith("google.protobuf.")
        and not inner.GetOptions().map_entry
    )

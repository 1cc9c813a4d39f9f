"""What befalls jobs of gated queues, seen to in the database: see migrations/0004_gates.sql."""

from __future__ import annotations

from .database import Database

_AT_ONCE = 500


async def admit(database: Database, queue: str) -> tuple[int, bool]:
    """Lets in who is next at the gates of `queue`.

    Returns how many jobs became ready, and whether there is more to see to. Any replica may do it at any time; one at a
    time does. What a crash undoes is done again by the next.
    """
    [row] = await database.once("admit", {"queue": queue, "limit": _AT_ONCE})
    return row.tickets, row.more

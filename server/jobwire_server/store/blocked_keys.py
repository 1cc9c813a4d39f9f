"""Keys of queues with a strict order that a failed job holds up, and what is decided about them.

Every decision is made under the lock of the queue's row, as slots are handed out: two of them cannot meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobwire_server.domain.dead_letters import BlockedKey, Unblock, Unblocked, UnblockStatus

from . import arrays
from .database import Connection, Database, Row

_MOST_WAITING = 10_000


async def list_blocked(database: Database, queue: str, after: str | None, limit: int) -> list[BlockedKey]:
    """A page of keys that are held up, in their order; those that wait behind are counted up to 10,000."""
    params = {"queue": queue, "after": after, "limit": limit, "most": _MOST_WAITING}
    async with database.reading() as connection:
        rows = await database.run(connection, "blocked_keys", params)
    return [BlockedKey(row.key, row.id, row.since, row.waiting) for row in rows]


async def unblock(database: Database, queue: str, keys: Sequence[str], action: Unblock) -> list[Unblocked]:
    """Decides about the failed jobs that hold up `keys`; a result for each, in order."""
    async with database.transaction() as connection:
        await database.run(connection, "lock_queue", {"queue": queue})
        rows = await database.run(connection, "holders", {"queue": queue, "keys": arrays.texts(keys)})
        holders: dict[str, Row] = {row.key: row for row in rows}
        statuses = dict.fromkeys(holders, UnblockStatus.DONE)
        if action is Unblock.RETRY:
            statuses = await _retry(database, connection, queue, holders)
        elif action is Unblock.DEAD_LETTER:
            statuses = await _send(database, connection, queue, holders)
        if action is not Unblock.RETRY:
            freed = [holders[key].id for key, status in statuses.items() if status is UnblockStatus.DONE]
            await database.run(connection, "free_keys", {"queue": queue, "ids": arrays.uuids(freed)})
    return [
        Unblocked(key, holders[key].id, statuses[key])
        if key in holders
        else Unblocked(key, None, UnblockStatus.NOT_BLOCKED)
        for key in keys
    ]


async def _retry(
    database: Database, connection: Connection, queue: str, holders: Mapping[str, Row]
) -> dict[str, UnblockStatus]:
    statuses = {}
    back = {}
    for key, row in holders.items():
        if row.failed_at is None:
            statuses[key] = UnblockStatus.JOB_GONE
        elif row.went_to and not await _withdraw(database, connection, queue, row):
            statuses[key] = UnblockStatus.DEAD_LETTER_TAKEN
        else:
            back[row.id] = row
    rows = await database.run(connection, "retry_failed", {"queue": queue} | _jobs(list(back.values())))
    came = {row.id for row in rows}
    for row in back.values():
        statuses[row.key] = UnblockStatus.DONE if row.id in came else UnblockStatus.JOB_GONE
    return statuses


async def _withdraw(database: Database, connection: Connection, queue: str, row: Row) -> bool:
    params = {"queue": queue, "id": row.id, "failed_at": row.failed_at, "target": row.went_to}
    [answer] = await database.run(connection, "withdraw_letter", params)
    return bool(answer.withdrawn)


async def _send(
    database: Database, connection: Connection, queue: str, holders: Mapping[str, Row]
) -> dict[str, UnblockStatus]:
    statuses = {}
    letters = []
    target = ""
    for key, row in holders.items():
        target = row.dead_letter
        if row.went_to:
            statuses[key] = UnblockStatus.DONE  # its dead letter is there, or on its way
        elif row.failed_at is None:
            statuses[key] = UnblockStatus.JOB_GONE
        elif not target:
            statuses[key] = UnblockStatus.NO_DEAD_LETTER_QUEUE
        else:
            statuses[key] = UnblockStatus.DONE
            letters.append(row)
    if letters:
        await database.run(connection, "send_failed", {"queue": queue, "target": target} | _jobs(letters))
    return statuses


def _jobs(rows: Sequence[Row]) -> dict[str, object]:
    return {
        "ids": arrays.uuids(row.id for row in rows),
        "times": arrays.timestamps(row.failed_at for row in rows),
    }

from __future__ import annotations

import pytest

from jobwire_server.broker import queue_book
from jobwire_server.broker.queue_book import QueueBook
from jobwire_server.domain.errors import QueueNotFound
from jobwire_server.domain.queues import Queue
from jobwire_server.store import queues as store
from jobwire_server.store.database import Database


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Which queues each look asked for, from now on."""
    seen: list[set[str]] = []
    get_queues = store.get_queues

    async def counted(database: Database, names: list[str]) -> dict[str, Queue]:
        seen.append(set(names))
        return await get_queues(database, names)

    monkeypatch.setattr(queue_book.store, "get_queues", counted)
    return seen


async def test_outdated_queues_in_use_are_looked_at_together(
    database: Database, monkeypatch: pytest.MonkeyPatch, looks: list[set[str]], schema: str
) -> None:
    book = QueueBook(database, create=True)
    names = {f"q{number}" for number in range(20)}
    for name in names:
        await book.for_publish(name)
    monkeypatch.setattr(queue_book, "FRESH_SECONDS", 0.0)
    async with database.connection() as connection:
        await connection.execute(f'UPDATE "{schema}".queue SET max_depth = 7')
        await connection.execute(f"DELETE FROM \"{schema}\".queue WHERE name = 'q9'")
    looks.clear()
    await book.find("q0")
    assert looks == [names]
    monkeypatch.setattr(queue_book, "FRESH_SECONDS", 60.0)
    looks.clear()
    assert {(await book.find(name)).max_depth for name in names - {"q9"}} == {7} and looks == []
    with pytest.raises(QueueNotFound):
        await book.find("q9")


async def test_queues_that_nobody_asks_for_are_not_looked_at(
    database: Database, monkeypatch: pytest.MonkeyPatch, looks: list[set[str]]
) -> None:
    book = QueueBook(database, create=True)
    await book.for_publish("used")
    await book.for_publish("left")
    monkeypatch.setattr(queue_book, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(queue_book, "_IN_USE_SECONDS", 0.0)
    looks.clear()
    await book.find("used")
    assert looks == [{"used"}]

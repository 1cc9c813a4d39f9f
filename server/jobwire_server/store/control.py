"""The connection outside the pool that listens, notifies and renews."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Self

from psycopg import sql

from .database import Connection, Database, translated


class ControlConnection:
    """An async context manager around one autocommit connection.

    All methods raise DatabaseUnavailable when it is lost.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listening: set[str] = set()
        self.connection: Connection

    async def __aenter__(self) -> Self:
        self.connection = await self._database.connect_alone()
        return self

    async def __aexit__(self, *_: object) -> None:
        with translated():
            await self.connection.close()

    async def listen(self, channels: Collection[str]) -> None:
        """Listens to exactly these channels."""
        with translated():
            for channel in set(channels) - self._listening:
                await self.connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                self._listening.add(channel)
            for channel in self._listening - set(channels):
                await self.connection.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
                self._listening.discard(channel)

    async def notify(self, messages: Sequence[tuple[str, str]]) -> None:
        """Sends (channel, payload) pairs in one commit of their own."""
        channels, payloads = zip(*messages, strict=True)
        with translated():
            await self.connection.execute(
                "SELECT pg_notify(channel, payload) FROM unnest(%s::text[], %s::text[]) AS m (channel, payload)",
                [list(channels), list(payloads)],
            )

    async def received(self) -> list[tuple[str, str]]:
        """The (channel, payload) pairs that have arrived, without waiting."""
        with translated():
            return [(message.channel, message.payload) async for message in self.connection.notifies(timeout=0)]

    async def wait(self, work: asyncio.Event, seconds: float) -> None:
        """Returns when something arrives on the connection, when `work` is set, or after `seconds`."""
        if seconds <= 0 or work.is_set():
            return
        loop = asyncio.get_running_loop()
        with translated():
            descriptor = self.connection.fileno()
        loop.add_reader(descriptor, work.set)
        try:
            async with asyncio.timeout(seconds if seconds != float("inf") else None):
                await work.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(descriptor)

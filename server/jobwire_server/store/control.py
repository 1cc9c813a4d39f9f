"""The connection outside the pool that listens, notifies and renews.

Behind a pooler nothing can be listened for: there it looks, every so often, for what other replicas left in this one's
letterbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Self

from psycopg import sql

from . import arrays
from .database import Connection, Database, translated

_PATIENCE_SECONDS = 10.0
"""For an answer: what this connection does is due every few seconds."""


class ControlConnection:
    """An async context manager around one autocommit connection.

    `channel` is the replica's own; `poll_seconds` is how often its letterbox is looked into, if it needs one. All
    methods raise DatabaseUnavailable when the connection is lost.
    """

    def __init__(self, database: Database, channel: str, poll_seconds: float) -> None:
        self._database = database
        self._channel = channel
        self._poll = poll_seconds
        self._next_look = 0.0
        self._listening: set[str] = set()
        self.connection: Connection

    async def __aenter__(self) -> Self:
        self.connection = await self._database.connect_alone()
        self.connection.patience = _PATIENCE_SECONDS
        return self

    async def __aexit__(self, *_: object) -> None:
        with translated():
            await self.connection.close()

    @property
    def listens(self) -> bool:
        """Whether notifications arrive."""
        return not self.connection.pooled

    async def listen(self, channels: Collection[str]) -> None:
        """Listens to exactly these channels, if it can."""
        if not self.listens:
            return
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
        params = {"channels": arrays.texts(channels), "payloads": arrays.texts(payloads)}
        await self._database.run(self.connection, "notify", params)

    async def received(self) -> list[tuple[str, str]]:
        """The (channel, payload) pairs that have arrived from others, without waiting."""
        if self.listens:
            own = self.connection.info.backend_pid
            with translated():
                arrived = [message async for message in self.connection.notifies(timeout=0)]
            return [(message.channel, message.payload) for message in arrived if message.pid != own]
        return await self.letters() if asyncio.get_running_loop().time() >= self._next_look else []

    async def letters(self) -> list[tuple[str, str]]:
        """What lies in the letterbox, as `received` gives it: it looks there when it is time again."""
        self._next_look = asyncio.get_running_loop().time() + self._poll
        letters = await self._database.run(self.connection, "read_letters", {"channel": self._channel})
        return [(self._channel, letter.payload) for letter in letters]

    async def wait(self, work: asyncio.Event, seconds: float) -> None:
        """Returns when something arrives or may have, when `work` is set, or after `seconds`."""
        loop = asyncio.get_running_loop()
        if not self.listens:
            seconds = min(seconds, self._next_look - loop.time())
        if seconds <= 0 or work.is_set():
            return
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

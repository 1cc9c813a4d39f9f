"""A TCP proxy that makes a network go wrong as asked: between client and server, and between server and database.

Always holds: what passes is passed whole and in order; of what is held back, no more is kept than a piece for each
direction of a connection and what the kernel takes (`buffer` bytes a socket), so a frozen reader holds up its writer;
and nothing that the two ends do is raised here. What is set holds for present and for new connections until `heal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Iterable
from typing import Literal, Self

Direction = Literal["up", "down"]
"""Up is from the client to the server."""

BOTH: tuple[Direction, Direction] = ("up", "down")
_PIECE = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: a close sends RST
_ACCEPT_AGAIN_SECONDS = 0.1


class Trap:
    """Cuts one connection at one byte, or freezes a direction there; `sprung` is set when that has happened.

    The connection is the first on which `pattern` comes by, the byte is the one `after` bytes behind the pattern's
    first one. The empty pattern is found in whatever comes first.
    """

    def __init__(self, pattern: bytes, after: int) -> None:
        self.sprung = asyncio.Event()
        self.freezes: _Way | None = None
        self._pattern = pattern
        self._left = after
        self._on: _Pump | None = None

    def passes(self, pump: _Pump, piece: bytes) -> bytes | None:
        """What of the piece is passed before the cut; None: all of it, and no cut yet."""
        if self._on is None:
            seen = pump.tail + piece
            found = seen.find(self._pattern)
            if found < 0:
                pump.tail = seen[-len(self._pattern) :]
                return None
            self._on, self._left = pump, self._left + found - len(pump.tail)
        elif self._on is not pump:
            return None
        if len(piece) < self._left:
            self._left -= len(piece)
            return None
        return piece[: max(0, self._left)]


class _Way:
    """How one direction is, for all connections."""

    def __init__(self) -> None:
        self.bytes = 0
        self.trap: Trap | None = None
        self.open = asyncio.Event()
        self.heal()

    def heal(self) -> None:
        self.delay = self.jitter = self.pause = 0.0
        self.piece = _PIECE
        self.swallows = False
        self.trap = None
        self.open.set()

    def spring(self) -> None:
        """The trap has cut its connection."""
        trap, self.trap = self.trap, None
        if trap is not None:
            trap.sprung.set()

    async def let_pass(self) -> None:
        """Returns when a piece that has just come in may go out."""
        if self.delay or self.jitter or self.pause:
            await asyncio.sleep(self.delay + random.uniform(0, self.jitter) + self.pause)
        elif self.piece < _PIECE:
            await asyncio.sleep(0)
        await self.open.wait()


class _Pump:
    """One direction of one connection."""

    def __init__(self, way: _Way) -> None:
        self.way = way
        self.deaf = False
        """Whether what comes in goes nowhere any more, so that the two ends do not agree on what was said."""
        self.tail = b""

    async def run(self, source: socket.socket, target: socket.socket) -> None:
        try:
            await self._run(source, target)
        except OSError:
            # How a connection ends is not told either to whom nothing is told any more.
            if not self.deaf:
                raise

    async def _run(self, source: socket.socket, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while piece := await loop.sock_recv(source, _PIECE):
            while piece:
                await self.way.let_pass()
                # Only now: how many go at once may have changed meanwhile.
                first, piece = piece[: self.way.piece], piece[self.way.piece :]
                await self._pass_on(first, target)
        await self.way.let_pass()
        if not self._is_deaf():
            target.shutdown(socket.SHUT_WR)

    async def _pass_on(self, piece: bytes, target: socket.socket) -> None:
        if self._is_deaf():
            return
        passing = self.way.trap.passes(self, piece) if self.way.trap is not None else None
        if passing is not None and self.way.trap is not None and self.way.trap.freezes is not None:
            self.way.trap.freezes.open.clear()
            self.way.spring()
            passing = None
        await asyncio.get_running_loop().sock_sendall(target, piece if passing is None else passing)
        self.way.bytes += len(piece if passing is None else passing)
        if passing is not None:
            self.way.spring()
            raise ConnectionResetError

    def _is_deaf(self) -> bool:
        self.deaf = self.deaf or self.way.swallows
        return self.deaf


class _Link:
    """One connection: two sockets, two pumps."""

    def __init__(self, client: socket.socket, server: socket.socket, ways: dict[Direction, _Way]) -> None:
        self.ends: dict[Direction, socket.socket] = {"up": client, "down": server}  # where a direction begins
        self.pumps: dict[Direction, _Pump] = {direction: _Pump(way) for direction, way in ways.items()}
        self.task: asyncio.Task[None]

    async def run(self, upstream: tuple[str, int]) -> None:
        client, server = self.ends["up"], self.ends["down"]
        try:
            await asyncio.get_running_loop().sock_connect(server, upstream)
            async with asyncio.TaskGroup() as pumping:
                pumping.create_task(self.pumps["up"].run(client, server))
                pumping.create_task(self.pumps["down"].run(server, client))
        except* OSError:
            self._close_by_reset()

    def reset(self) -> None:
        """Both ends are told by RST that the connection is no more."""
        self._close_by_reset()
        self.task.cancel()

    def close(self) -> None:
        """After the end of its task."""
        for end in self.ends.values():
            end.close()

    def _close_by_reset(self) -> None:
        for end in self.ends.values():
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def forget(self) -> None:
        """Neither end is told anything more."""
        for pump in self.pumps.values():
            pump.deaf = True


class Proxy:
    """Listens on 127.0.0.1 and passes on to one address, in the event loop in which it is entered.

    Directions are `"up"` (client to server), `"down"`, or both when none is named.
    """

    def __init__(self, host: str, port: int, *, listen_port: int = 0, buffer: int = _PIECE) -> None:
        self._upstream = host, port
        self._buffer = buffer
        self.port = listen_port
        """Where it listens, once entered."""
        self.connections = 0
        """How many there have been."""
        self.refused = 0
        """How many were refused."""
        self._ways: dict[Direction, _Way] = {"up": _Way(), "down": _Way()}
        self._links: set[_Link] = set()
        self._refuses = False

    async def __aenter__(self) -> Self:
        self._listener = self._socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(1_024)
        self.port = self._listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(), name=f"proxy {self.port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._accepting.cancel()
        self.cut()
        await asyncio.wait([self._accepting, *(link.task for link in self._links)])
        self._listener.close()

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    def passed(self, direction: Direction) -> int:
        """How many bytes have gone through."""
        return self._ways[direction].bytes

    def lead_to(self, host: str, port: int) -> None:
        """Pass new connections on to another address."""
        self._upstream = host, port

    # What can go wrong.

    def cut(self) -> None:
        """Reset all present connections, on both sides; what is held back is lost."""
        for link in self._links:
            link.reset()

    def refuse(self, *, refusing: bool = True) -> None:
        """Reset new connections at once."""
        self._refuses = refusing

    def freeze(self, direction: Direction | None = None) -> None:
        """Nothing passes, connections stay."""
        for way in self._chosen(direction):
            way.open.clear()

    def thaw(self, direction: Direction | None = None) -> None:
        """What was frozen goes on where it stopped."""
        for way in self._chosen(direction):
            way.open.set()

    def delay(self, seconds: float, *, jitter: float = 0.0, direction: Direction | None = None) -> None:
        """Each piece passes so much later, and up to `jitter` more; what follows it waits behind it."""
        for way in self._chosen(direction):
            way.delay, way.jitter = seconds, jitter

    def trickle(self, bytes_per_second: float, *, piece: int = 1, direction: Direction | None = None) -> None:
        """A few bytes at a time, each in a segment of its own; as slowly as asked, or slower if that is too fast."""
        for way in self._chosen(direction):
            way.piece, way.pause = piece, piece / bytes_per_second

    def swallow(self, direction: Direction | None = None) -> None:
        """What is sent is taken and goes nowhere. Such a connection cannot be healed; `heal` cuts it."""
        for way in self._chosen(direction):
            way.swallows = True

    def forget(self) -> None:
        """Present connections stay open, but their ends never hear of each other again; new ones are not touched."""
        for link in self._links:
            link.forget()

    def half_open(self, told: Direction) -> None:
        """One end of present connections is told that they are over, the other is not.

        Told is who sends in that direction: `"up"` the client, `"down"` the server.
        """
        for link in self._links:
            link.forget()
            with contextlib.suppress(OSError):
                link.ends[told].shutdown(socket.SHUT_RDWR)

    def cut_on(self, direction: Direction, pattern: bytes = b"", *, after: int = 0) -> Trap:
        """Reset the connection on which `pattern` comes by, `after` bytes behind the pattern's first one.

        Without any of them: as soon as the first byte comes, which is not passed. Holds once.
        """
        trap = self._ways[direction].trap = Trap(pattern, after)
        for link in self._links:
            link.pumps[direction].tail = b""
        return trap

    def freeze_answers_on(self, pattern: bytes) -> Trap:
        """Freeze `"down"` when `pattern` comes by upwards, which is passed. Holds once."""
        trap = self.cut_on("up", pattern)
        trap.freezes = self._ways["down"]
        return trap

    def heal(self) -> None:
        """All is well again. Connections whose ends do not agree on what was said are cut."""
        self._refuses = False
        for way in self._ways.values():
            way.heal()
        for link in self._links:
            if any(pump.deaf for pump in link.pumps.values()):
                link.reset()

    def _chosen(self, direction: Direction | None) -> Iterable[_Way]:
        return [self._ways[one] for one in BOTH if direction in (None, one)]

    # Connections.

    def _socket(self) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        # Inherited by what is accepted.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
        return made

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self._listener)
                client.setblocking(False)
                if self._refuses:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    client.close()
                    self.refused += 1
                    continue
                self._link(client)
            except OSError:  # out of descriptors, or the client was gone already
                await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)

    def _link(self, client: socket.socket) -> None:
        try:
            server = self._socket()
        except OSError:
            client.close()
            raise
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server, self._ways)
        self._links.add(link)
        self.connections += 1
        link.task = asyncio.create_task(link.run(self._upstream), name=f"proxied {self.port}")
        link.task.add_done_callback(lambda _: self._ended(link))

    def _ended(self, link: _Link) -> None:
        link.close()
        self._links.discard(link)

"""Each way in which the proxy can make a network go wrong, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.chaos.proxy import Proxy

PATIENCE = 60.0
SOON = 0.3
"""For what must not happen: long enough for it to happen on a slow machine most times."""


@dataclass
class Upstream:
    """What the server's end of the connections saw; it answers every byte with the same byte, unless it is mute."""

    port: int = 0
    mute: bool = False
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    received: bytearray = field(default_factory=bytearray)
    ends: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self.reads.wait()
                data = await reader.read(65_536)
                self.received += data
                if not data:
                    self.ends.append("closed")
                    break
                if not self.mute:
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            self.ends.append("reset")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@dataclass
class End:
    """The client's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await self.writer.drain()

    async def receive(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(count)

    async def echoes(self, data: bytes) -> bool:
        await self.send(data)
        return await self.receive(len(data)) == data

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(SOON):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    async def ends_with(self) -> str:
        """How the connection ended: `closed` or `reset`."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(65_536):
                    pass
        except ConnectionError:
            return "reset"
        return "closed"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    upstream.reads.set()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, backlog=1_024)
    upstream.port = server.sockets[0].getsockname()[1]
    yield upstream
    server.close()
    await server.wait_closed()


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[Proxy]:
    async with Proxy("127.0.0.1", upstream.port) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[End]:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield End(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_all_passes_in_order_and_is_counted(proxy: Proxy) -> None:
    data = os.urandom(3_000_000)
    async with connected(proxy) as end:
        _, echo = await asyncio.gather(end.send(data), end.receive(len(data)))
        assert echo == data
        assert proxy.open == 1
    await until(lambda: proxy.open == 0)
    assert (proxy.connections, proxy.passed("up"), proxy.passed("down")) == (1, len(data), len(data))


async def test_an_end_of_one_direction_passes_and_the_other_goes_on(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        await end.send(b"last words")
        end.writer.write_eof()
        assert await end.receive(10) == b"last words"
        assert await end.ends_with() == "closed"
    assert upstream.ends == ["closed"]


async def test_cut_resets_both_sides_and_leaves_new_connections_alone(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.cut()
        assert await end.ends_with() == "reset"
        await until(lambda: upstream.ends == ["reset"])
    async with connected(proxy) as end:
        assert await end.echoes(b"b")


async def test_a_connection_is_cut_before_it_has_begun(proxy: Proxy) -> None:
    async with connected(proxy) as end:
        await until(lambda: proxy.open == 1)
        proxy.cut()
        assert await end.ends_with() == "reset"
    await until(lambda: proxy.open == 0)


async def test_refused_connections_are_reset_until_healed(proxy: Proxy) -> None:
    async with connected(proxy) as old:
        assert await old.echoes(b"a")
        proxy.refuse()
        with contextlib.suppress(ConnectionError):
            async with connected(proxy) as end:
                assert await end.ends_with() == "reset"
        await until(lambda: proxy.refused == 1)
        assert await old.echoes(b"b")
        proxy.heal()
        async with connected(proxy) as end:
            assert await end.echoes(b"c")


async def test_an_upstream_that_is_away_is_a_reset(upstream: Upstream) -> None:
    async with Proxy("127.0.0.1", 1) as proxy, connected(proxy) as end:
        assert await end.ends_with() == "reset"


async def test_freezing_up_holds_what_is_sent_and_delivers_it_later(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.freeze("up")
        await end.send(b"bcd")
        assert await end.hears_nothing()
        assert upstream.received == b"a"
        proxy.thaw()
        assert await end.receive(3) == b"bcd"


async def test_freezing_down_lets_requests_through(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.freeze("down")
        await end.send(b"bcd")
        await until(lambda: upstream.received == b"abcd")
        assert await end.hears_nothing()
        proxy.heal()
        assert await end.receive(3) == b"bcd"


async def test_a_frozen_end_is_told_neither(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.freeze()
        end.writer.close()
        await asyncio.sleep(SOON)
        assert upstream.ends == []
        proxy.thaw()
        await until(lambda: upstream.ends)


async def test_what_is_frozen_and_then_cut_is_lost(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.freeze("up")
        await end.send(b"b")
        proxy.cut()
        proxy.heal()
        assert await end.ends_with() == "reset"
        await until(lambda: upstream.ends)
    assert upstream.received == b"a"


@pytest.mark.parametrize("how", ["frozen", "not read"])
async def test_a_writer_is_held_up_and_nothing_is_hoarded(proxy: Proxy, upstream: Upstream, how: str) -> None:
    upstream.mute = True
    if how == "frozen":
        proxy.freeze()
    else:
        upstream.reads.clear()
    total = 20_000_000
    async with connected(proxy) as end:
        end.writer.transport.set_write_buffer_limits(high=0)
        sending = asyncio.create_task(end.send(bytes(total)))
        await asyncio.sleep(SOON)
        assert not sending.done()
        left = end.writer.transport.get_write_buffer_size()
        assert left > total / 2, "most of it waits where it was written"
        proxy.heal()
        upstream.reads.set()
        await sending
        await until(lambda: len(upstream.received) == total)


async def test_delay_makes_each_way_later_and_keeps_the_order(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.delay(0.2, jitter=0.05)
        began = loop.time()
        assert await end.echoes(b"b")
        assert loop.time() - began >= 0.4
        for n in range(20):
            await end.send(bytes([n]))
        assert await end.receive(20) == bytes(range(20))
        proxy.delay(0.5, direction="down")
        proxy.heal()
        assert await end.echoes(b"c")


async def test_a_trickle_is_slow_and_complete(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.trickle(1_000, direction="up")
        began = loop.time()
        data = os.urandom(300)
        assert await end.echoes(data)
        assert loop.time() - began >= 0.3
        proxy.trickle(1_000_000, piece=1_000)
        assert await end.echoes(os.urandom(100_000))


async def test_swallowed_bytes_are_gone_and_healing_cuts(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end, connected(proxy) as silent:
        assert await end.echoes(b"a") and await silent.echoes(b"s")
        proxy.swallow("up")
        await end.send(bytes(5_000_000))
        assert await end.hears_nothing()
        assert upstream.received == b"as"
        proxy.heal()
        assert await end.ends_with() == "reset"
        assert await silent.echoes(b"t"), "nothing of it was swallowed"


async def test_a_forgotten_connection_stays_open_and_hears_nothing(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.forget()
        await end.send(b"b")
        assert await end.hears_nothing()
        async with connected(proxy) as other:
            assert await other.echoes(b"c")
        await until(lambda: proxy.open == 1)
        assert upstream.received == b"ac"
        proxy.heal()
        assert await end.ends_with() == "reset"


async def test_half_open_tells_the_server_only(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.half_open(told="down")
        await until(lambda: upstream.ends)
        await end.send(b"b")
        assert await end.hears_nothing()
        assert upstream.received == b"a"


async def test_half_open_tells_the_client_only(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        proxy.half_open(told="up")
        assert await end.ends_with() == "closed"
        await asyncio.sleep(SOON)
        assert upstream.ends == []


async def test_a_trap_cuts_before_the_first_byte_of_an_answer(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        assert await end.echoes(b"a")
        trap = proxy.cut_on("down")
        await end.send(b"request")
        assert await end.ends_with() == "reset"
        assert trap.sprung.is_set()
    assert upstream.received == b"arequest" and proxy.passed("down") == 1
    async with connected(proxy) as end:
        assert await end.echoes(b"once only")


@pytest.mark.parametrize("after", [0, 6, 9])
@pytest.mark.parametrize("piece", [4, 1_000])
async def test_a_trap_finds_its_pattern_whatever_the_pieces(
    proxy: Proxy, upstream: Upstream, piece: int, after: int
) -> None:
    upstream.mute = True
    async with connected(proxy) as other, connected(proxy) as end:
        trap = proxy.cut_on("up", b"secret", after=after)
        proxy.trickle(10_000, piece=piece)
        await other.send(b"sec")
        await until(lambda: upstream.received == b"sec")
        await end.send(b"a secret told")
        await trap.sprung.wait()
        assert await end.ends_with() == "reset"
        await until(lambda: upstream.ends)
        # What had passed when the pattern was complete is not taken back: pieces of four end within it.
        passed = max(2 + after, 4 if piece == 4 else 0)
        assert proxy.passed("up") == 3 + passed
        assert bytes(upstream.received) == b"sec" + b"a secret told"[:passed]
        assert await other.hears_nothing()
        assert proxy.open == 1


async def test_answers_freeze_when_a_request_comes_by_that_is_passed(proxy: Proxy, upstream: Upstream) -> None:
    async with connected(proxy) as end:
        trap = proxy.freeze_answers_on(b"commit")
        assert await end.echoes(b"begin")
        assert not trap.sprung.is_set()
        await end.send(b"now commit it")
        await until(lambda: upstream.received.endswith(b"commit it"))
        assert trap.sprung.is_set() and await end.hears_nothing()
        proxy.thaw()
        assert await end.receive(13) == b"now commit it"


@pytest.mark.parametrize("after", [1, 70_000, 1_000_000])
async def test_a_trap_cuts_after_so_many_bytes(proxy: Proxy, upstream: Upstream, after: int) -> None:
    upstream.mute = True
    async with connected(proxy) as end:
        proxy.cut_on("up", after=after)
        with contextlib.suppress(ConnectionError):
            await end.send(bytes(2_000_000))
        assert await end.ends_with() == "reset"
    assert proxy.passed("up") == after
    await until(lambda: upstream.ends)
    assert len(upstream.received) <= after


async def test_hundreds_of_connections_at_once(proxy: Proxy, upstream: Upstream) -> None:
    async with contextlib.AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(connected(proxy)) for _ in range(500)]
        assert all(await asyncio.gather(*(end.echoes(b"hello") for end in ends)))
        proxy.freeze()
        for end in ends:
            await end.send(b"later")
        proxy.thaw()
        assert set(await asyncio.gather(*(end.receive(5) for end in ends))) == {b"later"}
        proxy.cut()
        assert set(await asyncio.gather(*(end.ends_with() for end in ends))) == {"reset"}
    await until(lambda: proxy.open == 0)

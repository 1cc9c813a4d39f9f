"""What a worker does when its peer is gone without a word: no FIN, no RST, and nothing that answers any more."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from jobwire import Worker, acking, standing
from jobwire.v1 import queue_service_pb2 as pb
from tests.chaos.proxy import Proxy
from tests.client.held import Held
from tests.client.scripted_server import PATIENCE, ScriptedServer, Stream, delivery, seconds


@pytest.fixture
async def network(server: ScriptedServer) -> AsyncIterator[Proxy]:
    host, port = server.address.split(":")
    async with Proxy(host, int(port)) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def working(network: Proxy, *held: Held) -> AsyncIterator[Worker]:
    """A worker with a handler for each of the queues `q-0`, `q-1`, …; it is stopped at once at the end."""
    worker = Worker(network.address)
    for number, handler in enumerate(held):
        worker.handler(f"q-{number}", concurrency=50)(handler)
    async with worker:
        try:
            yield worker
        finally:
            worker.stop(now=True)


async def at_work(server: ScriptedServer, held: Held, *handles: str, session: str = "s-1", **terms: float) -> Stream:
    """The next stream, once the worker knows its terms and runs these deliveries."""
    stream = await server.opened(session, **terms)
    await stream.deliver(*map(delivery, handles))
    for handle in handles:
        await held.started(handle)
    return stream


async def test_handlers_notice_nothing_and_what_was_on_its_way_comes_again(
    server: ScriptedServer, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An Ack that nobody answers would be given up at last, and repeated: not here.
    monkeypatch.setattr(acking, "ATTEMPT_TIMEOUT", 3600.0)
    held = Held()
    async with working(network, held):
        first = await at_work(server, held, "h-1", "h-2", heartbeat=4, grace=12)
        network.forget()
        held.release("h-1")
        second = await server.opened()
        # The Ack of the other one may have come before it, over the new connection.
        assert second.request.resume.session_id == "s-1"
        assert "h-2" in second.request.resume.held
        assert not first.left.is_set(), "the server was told, so this test tries nothing"
        assert (await server.settled("h-1")).WhichOneof("outcome") == "complete"
        held.release("h-2")
        assert (await server.settled("h-2")).WhichOneof("outcome") == "complete"
        assert (held.cancelled, network.connections) == ([], 2)


async def test_all_sessions_of_a_worker_go_over_to_one_new_connection(server: ScriptedServer, network: Proxy) -> None:
    held = Held(), Held()
    async with working(network, *held):
        # Only one of them falls silent; the other resumes since it shares the connection.
        for session, grace in (("s-1", 12.0), ("s-2", 3600.0)):
            stream = await server.stream()
            await stream.open(session, heartbeat=grace / 3, grace=grace)
            await stream.deliver(delivery(f"h-of-{session}", queue=stream.request.queues[0]))
        resumed = [await server.stream() for _ in held]
        assert {stream.request.resume.session_id for stream in resumed} == {"s-1", "s-2"}
        for stream in resumed:
            await stream.open()
            (handle,) = stream.request.resume.held
            held[int(stream.request.queues[0][-1])].release(handle)
            assert (await server.settled(handle)).WhichOneof("outcome") == "complete"
        assert ([each.cancelled for each in held], network.connections) == ([[], []], 2)


async def test_workers_of_one_process_share_no_connection(server: ScriptedServer, network: Proxy) -> None:
    stays, leaves = Held(), Held()
    async with working(network, stays):
        await at_work(server, stays, "h-1", session="s-1", grace=3600)
        async with working(network, leaves):
            await at_work(server, leaves, "h-2", session="s-2", heartbeat=0.2, grace=0.6)
            network.forget()
            # A connection that the other one still has would be taken for a new one.
            assert (await server.opened()).request.resume.session_id == "s-2"
            assert network.connections == 3
        network.heal()


async def test_connections_that_were_left_are_closed(server: ScriptedServer, network: Proxy) -> None:
    held = Held()
    async with working(network, held):
        for number in range(20):
            await at_work(server, held, f"h-{number}", heartbeat=0.1, grace=0.3)
            network.forget()
        await server.opened()
        async with asyncio.timeout(PATIENCE):
            while len(_sockets_to(network.port)) > 1:
                await asyncio.sleep(0.05)
        assert network.connections > 20


def _sockets_to(port: int) -> list[object]:
    return [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]


async def test_a_stop_is_said_over_another_connection(server: ScriptedServer, network: Proxy) -> None:
    held = Held()
    async with working(network, held):
        await at_work(server, held, "h-1", heartbeat=0.5, grace=1.5)
        network.forget()
    assert (await server.settled("h-1")).WhichOneof("outcome") == "release"
    assert (await server.ack(lambda ack: ack.close_session)).session_id == "s-1"


async def test_a_stream_after_a_silent_one_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(standing, "_now", lambda: now)
    terms = pb.SessionOpened(session_id="s-1", heartbeat_interval=seconds(5), resume_grace=seconds(15))
    session = standing.Standing()

    def opens() -> None:
        session.subscribing(1)
        session.event(1)
        session.opened(terms)

    opens()
    assert (session.event_due, session.sign_due) == (now + 7.5, now + 10)
    session.fell_silent()
    opens()
    # A delivery that takes eight seconds arrives at the second attempt.
    assert session.event_due == session.sign_due == now + 10
    session.event(2)
    assert session.event_due == now + 7.5


async def test_a_loop_that_stood_still_is_not_taken_for_a_silent_server(server: ScriptedServer, network: Proxy) -> None:
    held = Held()
    async with working(network, held):
        stream = await at_work(server, held, "h-1", heartbeat=1, grace=3)
        # What the server says then lies there when the loop goes on, and nobody has read it.
        writing = asyncio.create_task(stream.heartbeat())
        time.sleep(2.5)  # noqa: ASYNC251 - this is what is tried
        sequence = await writing
        await server.ack(lambda ack: ack.last_sequence == sequence)
        await stream.cancel("h-1")
        await server.settled("h-1")
        assert held.cancelled == ["job-of-h-1"]
        assert not stream.left.is_set()
        assert network.connections == 1

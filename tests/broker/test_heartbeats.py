"""When a session's heartbeats count as missed, beat by beat."""

from __future__ import annotations

from uuid import uuid4

import pytest

from jobwire_server.broker.messages import Deliveries
from jobwire_server.broker.session import Session
from jobwire_server.broker.stream import Stream

from .conftest import subscription


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def session(stream: Stream) -> Session:
    session = Session(uuid4(), 1, subscription())
    session.attach(stream)
    return session


def beats(session: Session, count: int) -> list[bool]:
    return [session.beat() for _ in range(count)]


async def test_three_in_a_row_lose_the_session(session: Session) -> None:
    assert beats(session, 4) == [True, True, True, False]


async def test_an_answer_begins_the_count_anew(session: Session) -> None:
    assert beats(session, 3) == [True] * 3
    session.alive(0)
    assert beats(session, 4) == [True, True, True, False]


async def test_payloads_that_the_connection_takes_begin_the_count_anew(session: Session, stream: Stream) -> None:
    """Each large message takes longer than a heartbeat; the last one is never taken."""
    for _ in range(4):
        stream.push(Deliveries([]))
    assert session.beat()
    for sequence in range(1, 4):
        await stream.next_event()
        assert beats(session, 2) == [True, True]
        stream.written(sequence)
        assert session.beat()
    await stream.next_event()
    assert beats(session, 3) == [True, True, False]


async def test_what_was_taken_once_the_heartbeat_was_too_is_no_sign_of_life(session: Session, stream: Stream) -> None:
    assert session.beat()
    await stream.next_event()
    stream.written(1)
    stream.push(Deliveries([]))
    assert beats(session, 1) == [True]
    await stream.next_event()
    stream.written(2)
    await stream.next_event()
    stream.written(3)
    assert beats(session, 2) == [True, False]

"""When a heartbeat counts as missed: a session in memory, and the stream that its events wait in."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from jobwire_server.broker.messages import Heartbeat, Subscription
from jobwire_server.broker.session import Session
from jobwire_server.broker.stream import Stream
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Delivery

LARGE = '"' + "x" * 1_000_000 + '"'
"""A payload that fills a message."""


def large() -> Delivery:
    return Delivery(Handle("q", uuid4(), uuid4(), 1), LARGE, None, 0, 1, 0, 2, datetime.now(UTC), 900_000, False)


@pytest.fixture
async def session() -> Session:
    session = Session(uuid4(), 1, Subscription(("q",), 100, "w", 5_000, 15_000, None))
    session.attach(Stream())
    return session


async def write_next(session: Session, sequence: int) -> None:
    assert session.stream is not None
    await session.stream.next_event()
    session.stream.written(sequence)


async def test_a_heartbeat_that_waits_behind_payloads_is_not_missed_while_they_are_taken(session: Session) -> None:
    session.deliver([large() for _ in range(10)])
    for sequence in range(1, 11):
        assert session.beat()
        await write_next(session, sequence)
    # Now its turn has come: from here on it has to be answered.
    await write_next(session, 11)
    beats = [session.beat() for _ in range(4)]
    assert beats[0] and not beats[-1]


async def test_who_takes_nothing_is_lost_after_three(session: Session) -> None:
    session.deliver([large() for _ in range(10)])
    # The first is not due yet when it is sent.
    assert [session.beat() for _ in range(4)] == [True, True, True, False]


async def test_each_answer_begins_the_count_anew(session: Session) -> None:
    assert session.stream is not None
    for sequence in range(1, 31):
        assert session.beat()
        event = await session.stream.next_event()
        session.stream.written(sequence)
        assert isinstance(event, Heartbeat)
        if sequence % 3 == 0:
            session.alive(sequence)

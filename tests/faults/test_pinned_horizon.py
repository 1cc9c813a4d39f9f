"""Somebody's long transaction keeps every dead ticket: claims must not walk over them again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from jobwire_server.broker.broker import Broker
from jobwire_server.store.database import Database
from tests.broker.conftest import QUICK, Worker, publish, subscription
from tests.conftest import Postgres

from .watching import transaction

DEAD = 3_000
CLAIMS = 100


async def _entries_read(connection: psycopg.AsyncConnection[Any], schema: str, broker: Broker) -> int:
    """How many entries of the tickets' order the one connection of the broker has read so far, dead ones included."""
    async with broker._database.connection() as its_own:
        await its_own.execute("SELECT pg_stat_force_next_flush()")
    read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = %s AND indexrelname = 'ready_pkey'"
    [count] = await (await connection.execute(read, [schema])).fetchone() or [0]
    return int(count)


@pytest.mark.timeout(300)
async def test_claims_do_not_walk_over_dead_tickets(postgres: Postgres, schema: str) -> None:
    # The floor is given up whenever the queue is polled; here it is to be seen what it does in between.
    terms = replace(QUICK, replica=UUID(int=uuid7().int), poll_interval_ms=60_000)
    async with (
        await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection,
        Database(postgres.dsn, schema, pool_size=1) as database,
        Broker(database, terms) as broker,
    ):
        if connection.info.server_version < 150_000:
            pytest.skip("before PostgreSQL 15 nobody can have counters flushed at once")
        for _ in range(DEAD // 1_000):
            await publish(broker, 1_000)
        async with transaction(postgres.dsn, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT now()"):
            async with Worker(broker, subscription(credits=500)) as worker:
                done = 0
                while done < DEAD:
                    fresh = await worker.receive(done + 1)
                    await worker.ack(*(delivery.handle for delivery in fresh[done:]))
                    done = len(fresh)
            await publish(broker, CLAIMS)
            async with Worker(broker, subscription(credits=1)) as worker:
                before = await _entries_read(connection, schema, broker)
                for done in range(CLAIMS):
                    fresh = await worker.receive(done + 1)
                    await worker.ack(fresh[-1].handle)
                read = await _entries_read(connection, schema, broker) - before
        # Walking over all of them at each claim would read 300,000. Signals that come meanwhile cost a walk each.
        assert read < CLAIMS * DEAD / 10

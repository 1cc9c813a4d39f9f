"""The second migration comes while older servers and applications are at work."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from jobwire_server.domain.errors import LockTimeout
from jobwire_server.domain.queues import Queue
from jobwire_server.store import archive, migrate, queues
from jobwire_server.store.database import Database
from tests.conftest import Postgres

OLD_CREATE = (
    'INSERT INTO "{}".queue (name, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms,'
    " retention_ms, max_data_bytes) VALUES (%s, 2, 1000, true, 3600000, 900000, 604800000, 65536)"
)


async def first_only(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema as the first version left it."""
    with monkeypatch.context() as patched:
        every = migrate.load_migrations
        patched.setattr(migrate, "load_migrations", lambda schema: every(schema)[:1])
        await migrate.migrate(database)
        await archive.make_days_ahead(database)


async def test_what_older_servers_wrote_and_write_has_no_bound(
    postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"app_{uuid4().hex[:8]}"
    async with Database(postgres.dsn, schema) as database:
        await first_only(database, monkeypatch)
        with psycopg.connect(postgres.dsn, autocommit=True) as old:
            old.execute(OLD_CREATE.format(schema).encode(), ["before"])
            old.execute(f"CREATE ROLE {role}".encode())
            try:
                old.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO {role}'.encode())
                old.execute(f'GRANT EXECUTE ON FUNCTION "{schema}".publish(text, jsonb, jsonb) TO {role}'.encode())
                assert "0002_max_depth" in await migrate.migrate(database)
                old.execute(OLD_CREATE.format(schema).encode(), ["after"])
                old.execute(f"SET ROLE {role}".encode())
                for queue in ("before", "after"):
                    old.execute(f"SELECT \"{schema}\".publish(%s, '1')".encode(), [queue])
                old.execute("RESET ROLE")
            finally:
                old.execute(f"DROP OWNED BY {role}".encode())
                old.execute(f"DROP ROLE {role}".encode())
        known = await queues.get_queues(database, ["before", "after"])
        assert [known[name].max_depth for name in ("before", "after")] == [0, 0]


async def test_an_open_transaction_that_published_stops_nobody(
    postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Database(postgres.dsn, schema) as database:
        await first_only(database, monkeypatch)
        with psycopg.connect(postgres.dsn) as application:
            application.execute(OLD_CREATE.format(schema).encode(), ["work"])
            application.commit()
            application.execute(f"SELECT \"{schema}\".publish('work', '1')".encode())
            with pytest.raises(LockTimeout):
                await migrate.migrate(database)
            application.commit()
        assert "0002_max_depth" in await migrate.migrate(database)
        assert await queues.create_queue(database, Queue("bounded", max_depth=3))
        assert await queues.depth(database, "bounded", 3) == 0
        assert await queues.depth(database, "work", 5) == 1

"""What the commands share that work on the database itself, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from jobwire_server.cli.ending import Code, fail
from jobwire_server.cli.settings import settings_or_fail
from jobwire_server.domain.errors import DatabaseUnavailable, JobwireError
from jobwire_server.store.database import Database

Result = TypeVar("Result")


def on_database(work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Does `work` on the database that the settings name; what goes wrong ends the command."""
    settings = settings_or_fail()

    async def run() -> Result:
        async with Database(settings.database_url.get_secret_value(), settings.schema_name, 1) as database:
            return await work(database)

    try:
        return asyncio.run(run())
    except (DatabaseUnavailable, psycopg.OperationalError) as error:
        why = " ".join(str(error.__cause__ or error).split())
        fail(f"cannot reach the database {settings.database}: {why}", Code.UNAVAILABLE)
    except (JobwireError, psycopg.Error) as error:
        fail(f"the database refused: {str(error).strip()}")

"""`jobwire migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from jobwire_server.cli.database import on_database
from jobwire_server.cli.ending import Code, fail, say
from jobwire_server.cli.output import JsonOption, print_json
from jobwire_server.store import migrate as migrations
from jobwire_server.store.database import Database
from jobwire_server.store.migrate import SchemaState

app = typer.Typer()


@app.command()
def migrate(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if something is to be done.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the database's schema to this version's state. Safe beside running servers, and any number of times."""
    schema, state, applied = on_database(_check if check else _migrate)
    if as_json:
        print_json(
            {
                "schema": schema,
                "version": state.applied,
                "pending": state.pending,
                "applied": applied,
                "newer": state.unknown,
            }
        )
    else:
        for name in applied:
            say(f"applied {name}")
        for name in state.pending:
            say(f"pending {name}")
    if state.unknown:
        fail(f"schema {schema!r} was migrated by a newer version that this one cannot serve beside: run that version")
    if state.pending:
        raise typer.Exit(Code.NEGATIVE)
    if not as_json:
        say(f"schema {schema!r} is up to date, at migration {state.applied}")


async def _check(database: Database) -> tuple[str, SchemaState, tuple[str, ...]]:
    return database.schema, await migrations.check(database), ()


async def _migrate(database: Database) -> tuple[str, SchemaState, tuple[str, ...]]:
    applied = await migrations.migrate(database)
    return database.schema, await migrations.check(database), applied

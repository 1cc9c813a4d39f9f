"""`jobwire recover`."""

from __future__ import annotations

import typer

from jobwire_server.cli.asking import YesOption, ask
from jobwire_server.cli.database import on_database
from jobwire_server.cli.ending import fail, say
from jobwire_server.cli.output import JsonOption, print_json, print_table
from jobwire_server.store import migrate as migrations
from jobwire_server.store.database import Database
from jobwire_server.store.upkeep import Recovered
from jobwire_server.store.upkeep import recover as give_all_back

app = typer.Typer()

_WARNING = """\
This ends all sessions and gives every running job back to its queue. It is for a database that was restored from a
backup, before servers are started on it. If workers do run, their jobs will run a second time."""


@app.command()
def recover(
    *,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """After a restore from a backup: end all sessions, give every running job back, and say how many."""
    ask(_WARNING, yes=yes)
    done = on_database(_recover)
    if done is None:
        fail("there is no Jobwire schema in this database: check DATABASE_URL and JOBWIRE_SCHEMA")
    if as_json:
        print_json(done)
        return
    say(f"{done.sessions:,} sessions ended, {sum(done.jobs.values()):,} jobs given back")
    if done.jobs:
        print_table(("queue", "jobs given back"), sorted(done.jobs.items()))


async def _recover(database: Database) -> Recovered | None:
    state = await migrations.check(database)
    return await give_all_back(database) if state.applied else None

"""`jobwire actions`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.output import JsonOption, moment, print_json, print_table

app = typer.Typer()


@app.command()
def actions(
    *,
    queue: Annotated[str, typer.Option(metavar="QUEUE", help="Only those about this queue.")] = "",
    by: Annotated[str, typer.Option(metavar="WHO", help="Only those of this actor.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 50,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Show what operators did, newest first. It is kept for 90 days."""
    found = call(server, lambda client: client.admin.list_actions(queue, by, limit=limit))
    if as_json:
        for action in found:
            print_json(action)
        return
    rows = [
        (
            moment(action.time),
            action.actor,
            action.what,
            action.queue or "all queues",
            f"{action.changed:,} of {action.matched:,}" if action.what.startswith("job.") else "",
            json.dumps(action.selection, ensure_ascii=False)[:80],
        )
        for action in found
    ]
    print_table(("time", "who", "what", "queue", "jobs", "which"), rows)

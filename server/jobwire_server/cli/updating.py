"""`jobwire jobs update`: change jobs that wait."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from jobwire import WhichJobs
from jobwire.operations import UNCHANGED
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.ending import Code, fail, say
from jobwire_server.cli.output import JsonOption, print_json


def update(  # noqa: PLR0913  (a job has as many sides)
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="Their queue.")],
    *,
    job_id: Annotated[str, typer.Option("--id", metavar="ID", help="The job of this id; or else give --key.")] = "",
    key: Annotated[str, typer.Option(help="Jobs of this key.")] = "",
    which: Annotated[WhichJobs, typer.Option(help="Which of several that wait for the key.")] = WhichJobs.NEWEST,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="The payload instead of what it is.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher is delivered first.")] = None,
    start_in: Annotated[float | None, typer.Option(metavar="SECONDS", help="Not before this pause from now.")] = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Publish a job if none waits.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Change payload, priority or time of jobs that wait, by id or key; what is not given stays."""
    if bool(job_id) == bool(key):
        fail("give either --id or --key", Code.USAGE)
    payload = UNCHANGED if data is None else _parsed(data)
    done = call(
        server,
        lambda client: client.admin.update_jobs(
            queue,
            job_id=job_id,
            key=key,
            which=which,
            data=payload,
            priority=priority,
            start_in=start_in,
            upsert=upsert,
        ),
    )
    if as_json:
        print_json(done)
    elif done.created_job_id:
        say(f"none waited; published {done.created_job_id}")
    else:
        for changed in done.job_ids:
            say(f"{changed}: done")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        fail(f"--data is not JSON: {error}", Code.USAGE)

"""`jobwire job`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from jobwire import JobInfo, JobState
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.ending import Code
from jobwire_server.cli.output import JsonOption, moment, print_facts, print_json, span

app = typer.Typer()


@app.command()
def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's UUID.")],
    *,
    queue: Annotated[str, typer.Option(metavar="QUEUE", help="Its queue; without it all queues are searched.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it is finished.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Show a job, or follow it. The exit code is 1 if it failed or was cancelled."""
    if watch:
        found = _watch_as_json(server, job_id, queue) if as_json else watch_with_bar(server, job_id, queue)
    else:
        found = call(server, lambda client: client.get_job(job_id, queue))
        if as_json:
            print_json(found)
    if not as_json:
        _print(found)
    if found.state in (JobState.FAILED, JobState.CANCELLED):
        raise typer.Exit(Code.NEGATIVE)


def _watch_as_json(server: str, job_id: str, queue: str) -> JobInfo:
    return call(server, lambda client: client.wait(job_id, queue, on_change=print_json))


def watch_with_bar(server: str, job_id: str, queue: str) -> JobInfo:
    """Follows a job to its end with a progress bar."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("waiting", total=None)

        def show(found: JobInfo) -> None:
            said = found.progress
            fraction = 1.0 if found.state is JobState.COMPLETED else said.fraction if said else None
            words = found.state if found.finished or not (said and said.note) else f"{found.state}: {said.note}"
            progress.update(task, description=words, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        return call(server, lambda client: client.wait(job_id, queue, on_change=show))


def _print(found: JobInfo) -> None:
    facts: list[tuple[str, object]] = [
        ("job", found.id),
        ("queue", found.queue),
        ("state", f"{found.state}, told to stop" if found.cancel_requested else found.state),
    ]
    if found.progress:
        share = "" if found.progress.fraction is None else f"{found.progress.fraction:.0%} "
        facts.append(("progress", f"{share}{found.progress.note}"))
    facts += [
        ("deliveries", f"{found.attempt}, retries used {found.retry_count} of {found.options.retry_limit}"),
        ("published", moment(found.created_at)),
    ]
    facts += _belongings(found)
    if found.start_after > found.created_at:
        facts.append(("not before", moment(found.start_after)))
    if found.started_at:
        facts.append(("started", f"{moment(found.started_at)} by {found.worker or 'a worker without a name'}"))
    if found.finished_at:
        took = f", after {span((found.finished_at - found.started_at).total_seconds())}" if found.started_at else ""
        facts.append(("finished", moment(found.finished_at) + took))
    facts.append(("data", json.dumps(found.data, ensure_ascii=False)))
    if found.output is not None:
        facts.append(("output", json.dumps(found.output, ensure_ascii=False)))
    facts += [(f"error in run {error.attempt}", f"{error.type}: {error.message}") for error in found.errors]
    print_facts(facts)


def _belongings(found: JobInfo) -> list[tuple[str, object]]:
    """What a job has that most have not."""
    facts: list[tuple[str, object]] = []
    if found.checkpoint is not None:
        facts.append(("checkpoint", json.dumps(found.checkpoint, ensure_ascii=False)))
    if found.key:
        facts.append(("key", found.key))
    if found.group:
        facts.append(("group", f"{found.group.id}, tier {found.group.tier}" if found.group.tier else found.group.id))
    if found.waits_for:
        facts.append(("waits for", f"its turn in {found.waits_for}"))
    if found.origin:
        origin = found.origin
        redriven = f", redriven {origin.redrives} times" if origin.redrives else ""
        facts.append(("comes from", f"{origin.job_id} in {origin.queue}, failed {moment(origin.failed_at)}{redriven}"))
    return facts

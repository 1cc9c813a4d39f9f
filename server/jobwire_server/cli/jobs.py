"""`jobwire jobs`: find jobs, and change many of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobwire import ChangeResult, Changes, ChangeStatus, Client, JobChange, JobFilter, JobInfo, JobState
from jobwire_server.cli.asking import YesOption, ask
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.ending import Code, fail, say
from jobwire_server.cli.job import job
from jobwire_server.cli.output import JsonOption, moment, print_json, print_table
from jobwire_server.cli.updating import update

app = typer.Typer(help="Find jobs, and change those named or those that match.", no_args_is_help=True)
app.command()(update)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs by their ids; else by filter.")]
QueueOption = Annotated[str, typer.Option(metavar="QUEUE", help="Their queue; without it all queues.")]
States = Annotated[list[JobState] | None, typer.Option("--state", help="In this state; may be given again.")]
Key = Annotated[str | None, typer.Option(help="Of this key.")]
Group = Annotated[str | None, typer.Option(help="Of this group.")]
WorkerName = Annotated[str | None, typer.Option("--worker", help="Held now or last by this worker.")]
ErrorType = Annotated[str | None, typer.Option(help="With a failed run of this type.")]
Error = Annotated[str | None, typer.Option("--error", metavar="TEXT", help="With a failed run that says this.")]
CreatedFrom = Annotated[datetime | None, typer.Option(help="Stored at this local time or later.")]
CreatedBefore = Annotated[datetime | None, typer.Option(help="Stored before this local time.")]
FinishedFrom = Annotated[datetime | None, typer.Option(help="Finished at this local time or later.")]
FinishedBefore = Annotated[datetime | None, typer.Option(help="Finished before this local time.")]
PriorityFrom = Annotated[int | None, typer.Option(help="Of this priority or a higher one.")]
PriorityTo = Annotated[int | None, typer.Option(help="Of this priority or a lower one.")]
Data = Annotated[str | None, typer.Option(metavar="JSON", help='Whose payload contains this, such as {"user": 7}.')]
All = Annotated[bool, typer.Option("--all", help="All jobs of the queue that may be changed so.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be changed, and change nothing.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Change at most so many.")]


@app.command("list")
def list_jobs(  # noqa: PLR0913  (a filter has as many sides)
    *,
    queue: QueueOption = "",
    state: States = None,
    key: Key = None,
    group: Group = None,
    worker: WorkerName = None,
    error_type: ErrorType = None,
    error: Error = None,
    created_from: CreatedFrom = None,
    created_before: CreatedBefore = None,
    finished_from: FinishedFrom = None,
    finished_before: FinishedBefore = None,
    priority_from: PriorityFrom = None,
    priority_to: PriorityTo = None,
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 50,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """List jobs that match, by queue and newest first."""
    where = _filter(locals())

    async def fetch(client: Client) -> list[JobInfo]:
        return [
            found async for found in client.admin.list_jobs(queue, where=where, limit=limit, page_size=min(limit, 500))
        ]

    jobs = call(server, fetch)
    if as_json:
        for found in jobs:
            print_json(found)
        return
    rows = [
        (found.queue, found.id, found.state, found.attempt, moment(found.created_at), _last_error(found))
        for found in jobs
    ]
    print_table(("queue", "id", "state", "runs", "stored", "last error"), rows, whole=["id"])
    if len(jobs) == limit:
        say(f"the first {limit:,}; --limit shows more")


app.command("show")(job)


def _register(change: JobChange, says: str) -> None:
    def run(  # noqa: PLR0913  (a filter has as many sides)
        ids: Ids = None,
        *,
        queue: QueueOption = "",
        state: States = None,
        key: Key = None,
        group: Group = None,
        worker: WorkerName = None,
        error_type: ErrorType = None,
        error: Error = None,
        created_from: CreatedFrom = None,
        created_before: CreatedBefore = None,
        finished_from: FinishedFrom = None,
        finished_before: FinishedBefore = None,
        priority_from: PriorityFrom = None,
        priority_to: PriorityTo = None,
        data: Data = None,
        everything: All = False,
        limit: Limit = None,
        dry_run: DryRun = False,
        yes: YesOption = False,
        server: ServerOption = DEFAULT_SERVER,
        as_json: JsonOption = False,
    ) -> None:
        given = _filter(locals())
        change_jobs(
            change,
            ids or [],
            queue,
            given,
            "",
            everything=everything,
            limit=limit,
            dry_run=dry_run,
            yes=yes,
            server=server,
            as_json=as_json,
        )

    run.__doc__ = says
    app.command(change.value)(run)


for _change, _says in (
    (JobChange.CANCEL, "Cancel jobs; the workers of running ones are told to stop."),
    (JobChange.RETRY, "Let failed and cancelled jobs run again, with all their retries before them."),
    (JobChange.RESUME, "Undo cancellations: the jobs wait again as they did."),
    (JobChange.DELETE, "Remove waiting and finished jobs for good."),
    (JobChange.RELEASE, "Give running jobs back to their queue; their workers are told to stop."),
    (JobChange.RUN, "Let jobs that wait for a time wait no longer."),
    (JobChange.ERASE, "Remove payload, output and errors, and keep the jobs' skeletons; waiting jobs are cancelled."),
):
    _register(_change, _says)


@app.command()
def move(  # noqa: PLR0913  (a filter has as many sides)
    ids: Ids = None,
    *,
    to: Annotated[str, typer.Option(metavar="QUEUE", help="Where to.")],
    queue: QueueOption = "",
    state: States = None,
    key: Key = None,
    group: Group = None,
    worker: WorkerName = None,
    error_type: ErrorType = None,
    error: Error = None,
    created_from: CreatedFrom = None,
    created_before: CreatedBefore = None,
    finished_from: FinishedFrom = None,
    finished_before: FinishedBefore = None,
    priority_from: PriorityFrom = None,
    priority_to: PriorityTo = None,
    data: Data = None,
    everything: All = False,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: YesOption = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Move waiting jobs to another queue."""
    given = _filter(locals())
    change_jobs(
        JobChange.MOVE,
        ids or [],
        queue,
        given,
        to,
        everything=everything,
        limit=limit,
        dry_run=dry_run,
        yes=yes,
        server=server,
        as_json=as_json,
    )


def change_jobs(  # noqa: PLR0913  (it may be said in two ways which jobs, and how many)
    change: JobChange,
    ids: Sequence[str],
    queue: str,
    where: JobFilter,
    destination: str,
    *,
    everything: bool,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    server: str,
    as_json: bool,
) -> None:
    """Changes jobs that are named, or after a dry run and a question those that match."""
    by_filter = where != JobFilter() or everything
    if bool(ids) == by_filter:
        fail("say which jobs: by their ids, by a filter, or --all", Code.USAGE)
    if ids:
        results = call(server, lambda client: _by_ids(client, change, queue, ids, destination, dry_run=dry_run))
        _report(results, as_json=as_json)
        return
    with _progress("counting") as told:
        counted = call(
            server,
            lambda client: client.admin.change_jobs(
                change,
                queue,
                where=where,
                destination=destination,
                dry_run=True,
                on_progress=told,
            ),
        )
    if not dry_run and counted.matched:
        most = counted.matched if limit is None else min(limit, counted.matched)
        _show_sample(counted)
        ask(f"This is to {change} {most:,} of {counted.matched:,} jobs.", yes=yes)
        with _progress(str(change), most) as told:
            counted = call(
                server,
                lambda client: client.admin.change_jobs(
                    change,
                    queue,
                    where=where,
                    destination=destination,
                    confirmation="" if limit else counted.confirmation,
                    limit=limit,
                    on_progress=told,
                ),
            )
    elif not as_json:
        _show_sample(counted)
    if as_json:
        print_json({"matched": counted.matched, "changed": counted.changed})
    else:
        say(f"{counted.matched:,} jobs matched, {counted.changed:,} were changed")


async def _by_ids(
    client: Client, change: JobChange, queue: str, ids: Sequence[str], destination: str, *, dry_run: bool
) -> list[ChangeResult]:
    by_queue: dict[str, list[str]] = defaultdict(list)
    for job_id in ids:
        by_queue[queue or (await client.get_job(job_id)).queue].append(job_id)
    results: list[ChangeResult] = []
    for name, mine in by_queue.items():
        changes = await client.admin.change_jobs(change, name, ids=mine, destination=destination, dry_run=dry_run)
        results += changes.results
    return results


_WORDS = {
    ChangeStatus.CHANGED: "done",
    ChangeStatus.REQUESTED: "its worker is told to stop",
    ChangeStatus.NOT_FOUND: "there is no such job",
    ChangeStatus.ID_TAKEN: "a job of this id is there already",
    ChangeStatus.KEY_TAKEN: "the queue allows no other job of its key now, or wants a key",
}


def _report(results: Sequence[ChangeResult], *, as_json: bool) -> None:
    if as_json:
        for result in results:
            print_json(result)
    else:
        for result in results:
            say(f"{result.job_id}: {_WORDS.get(result.status, f'not possible, it is {result.state}')}")
    failed = {result.status for result in results} - {ChangeStatus.CHANGED, ChangeStatus.REQUESTED}
    if failed:
        raise typer.Exit(Code.NOT_FOUND if failed == {ChangeStatus.NOT_FOUND} else Code.NEGATIVE)


def _show_sample(changes: Changes) -> None:
    for result in changes.results:
        say(f"  {result.queue}  {result.job_id}  {result.state}")
    if changes.matched > len(changes.results):
        say(f"  … and {changes.matched - len(changes.results):,} more")


@contextmanager
def _progress(what: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """Shows how many jobs have been seen; gives what is told of it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda seen, _: progress.update(task, completed=seen)


def _filter(options: dict[str, Any]) -> JobFilter:
    """What a command's options say of jobs."""

    def local(name: str) -> datetime | None:
        given: datetime | None = options[name]
        return None if given is None else given.astimezone()

    return JobFilter(
        states=tuple(options["state"] or ()),
        key=options["key"],
        group=options["group"],
        worker=options["worker"],
        error_type=options["error_type"],
        error_text=options["error"],
        created_from=local("created_from"),
        created_before=local("created_before"),
        finished_from=local("finished_from"),
        finished_before=local("finished_before"),
        priority_from=options["priority_from"],
        priority_to=options["priority_to"],
        data_contains=None if options["data"] is None else _json(options["data"]),
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        _refuse(f"--data is not JSON: {error}")


def _refuse(message: str) -> NoReturn:
    fail(message, Code.USAGE)


def _last_error(found: JobInfo) -> str:
    return f"{found.errors[-1].type}: {found.errors[-1].message}" if found.errors else ""

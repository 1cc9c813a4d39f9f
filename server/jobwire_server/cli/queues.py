"""`jobwire queues`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobwire import JobOptions, PurgeScope, QueueCounts, QueueInfo
from jobwire_server.cli.asking import YesOption, ask
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.ending import say
from jobwire_server.cli.output import JsonOption, moment, print_facts, print_json, print_table, span

app = typer.Typer(
    help="List, create, show, change, purge and delete queues. Without a command: list them.",
    invoke_without_command=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="1 to 63 letters, digits, `_` or `-`.")]
RetryLimit = Annotated[int | None, typer.Option(help="How often a failed job is tried again (0 to 1000).")]
RetryDelay = Annotated[float | None, typer.Option(metavar="SECONDS", help="Pause before a retry.")]
RetryBackoff = Annotated[bool | None, typer.Option(help="Whether the pause doubles with each retry.")]
RetryDelayMax = Annotated[float | None, typer.Option(metavar="SECONDS", help="Upper bound of a pause that doubles.")]
ExpireIn = Annotated[float | None, typer.Option(metavar="SECONDS", help="How long one run may take.")]
Retention = Annotated[float | None, typer.Option(metavar="SECONDS", help="How long a finished job is kept.")]
MaxDataBytes = Annotated[int | None, typer.Option(help="Largest payload and output in bytes (1 to 524288).")]

MaxDepth = Annotated[int | None, typer.Option(help="How many jobs may wait (0 to 1000000000; 0: any number).")]


@app.callback()
def _queues(context: typer.Context, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        list_queues(server=server, as_json=as_json)


@app.command("list")
def list_queues(*, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """List all queues with the number of their live jobs."""
    queues = call(server, lambda client: client.admin.list_queues())
    if as_json:
        for queue in queues:
            print_json(queue)
    else:
        rows = [(queue.name, *_counts(queue), _oldest(queue), queue.max_depth or "-") for queue in queues]
        print_table(("queue", "ready", "scheduled", "active", "blocked", "failed", "oldest", "may wait"), rows)


@app.command()
def show(name: NameArgument, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Show a queue: what holds for its jobs, and how many are live."""
    _print(call(server, lambda client: client.admin.get_queue(name)), as_json=as_json)


@app.command()
def create(  # noqa: PLR0913  (a queue has that many settings)
    name: NameArgument,
    *,
    retry_limit: RetryLimit = None,
    retry_delay: RetryDelay = None,
    retry_backoff: RetryBackoff = None,
    retry_delay_max: RetryDelayMax = None,
    expire_in: ExpireIn = None,
    retention: Retention = None,
    max_data_bytes: MaxDataBytes = None,
    max_depth: MaxDepth = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Make sure that a queue exists. One that does is left as it is."""
    options = _options(retry_limit, retry_delay, retry_backoff, retry_delay_max, expire_in, retention)
    queue = call(
        server,
        lambda client: client.admin.create_queue(name, options, max_data_bytes=max_data_bytes, max_depth=max_depth),
    )
    _print(queue, as_json=as_json, created=queue.created)


@app.command()
def update(  # noqa: PLR0913  (a queue has that many settings)
    name: NameArgument,
    *,
    retry_limit: RetryLimit = None,
    retry_delay: RetryDelay = None,
    retry_backoff: RetryBackoff = None,
    retry_delay_max: RetryDelayMax = None,
    expire_in: ExpireIn = None,
    retention: Retention = None,
    max_data_bytes: MaxDataBytes = None,
    max_depth: MaxDepth = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Change what holds for jobs published from now on; what is not given stays."""
    options = _options(retry_limit, retry_delay, retry_backoff, retry_delay_max, expire_in, retention)
    queue = call(
        server,
        lambda client: client.admin.update_queue(name, options, max_data_bytes=max_data_bytes, max_depth=max_depth),
    )
    _print(queue, as_json=as_json)


@app.command()
def purge(
    name: NameArgument,
    *,
    scope: Annotated[PurgeScope, typer.Option("--scope", help="Which jobs; running ones always stay.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and remove nothing.")] = False,
    yes: YesOption = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Remove all waiting jobs of a queue for good, or all finished ones, or both."""
    done = call(server, lambda client: client.admin.purge_queue(name, scope, dry_run=True))
    if not dry_run and done.matched:
        ask(f"This removes {done.matched:,} jobs for good.", yes=yes)
        done = call(server, lambda client: client.admin.purge_queue(name, scope))
    if as_json:
        print_json({"matched": done.matched, "deleted": done.changed})
    else:
        say(f"{done.matched:,} jobs matched, {done.changed:,} were removed")


@app.command()
def delete(
    name: NameArgument,
    *,
    force: Annotated[bool, typer.Option("--force", help="With all its jobs, whatever they do.")] = False,
    yes: YesOption = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Delete a queue with its finished jobs. It is refused while live jobs or references remain."""
    ask(f"This deletes {name} and {'all' if force else 'the finished'} jobs in it.", yes=yes)
    jobs = call(server, lambda client: client.admin.delete_queue(name, force=force))
    if as_json:
        print_json({"queue": name, "deleted_jobs": jobs})
    else:
        say(f"{name} is deleted, and {jobs:,} jobs with it")


def _options(
    retry_limit: int | None,
    retry_delay: float | None,
    retry_backoff: bool | None,
    retry_delay_max: float | None,
    expire_in: float | None,
    retention: float | None,
) -> JobOptions:
    return JobOptions(
        retry_limit=retry_limit,
        retry_delay=retry_delay,
        retry_backoff=retry_backoff,
        retry_delay_max=retry_delay_max,
        expire_in=expire_in,
        retention=retention,
    )


def _counts(queue: QueueInfo) -> tuple[str, ...]:
    """Ready, scheduled, active, blocked, failed; an estimate is marked as one."""
    counts = queue.counts or QueueCounts(0, 0, 0)
    numbers = (counts.ready, counts.scheduled, counts.active, counts.blocked, counts.failed)
    return tuple(f"{'~' if counts.exact_up_to and number > counts.exact_up_to else ''}{number:,}" for number in numbers)


def _oldest(queue: QueueInfo) -> str:
    age = queue.counts.oldest_ready_age if queue.counts else None
    return "-" if age is None else span(round(age))


def _print(queue: QueueInfo, *, as_json: bool, created: bool | None = None) -> None:
    if as_json:
        print_json(queue)
        return
    options = queue.options
    facts: list[tuple[str, Any]] = [("queue", queue.name)]
    if created is not None:
        facts.append(("created", "now" if created else "before; left as it is"))
    if queue.counts:
        facts.append(("jobs", "{} ready, {} scheduled, {} active, {} blocked, {} failed".format(*_counts(queue))))
    facts += [
        ("retries", f"{options.retry_limit}, after {span(options.retry_delay)}{_backoff(options)}"),
        ("a run may take", span(options.expire_in)),
        ("kept when finished", span(options.retention)),
        ("may wait", f"{queue.max_depth:,} jobs" if queue.max_depth else "any number of jobs"),
        ("largest payload", f"{queue.max_data_bytes:,} bytes"),
        ("made", moment(queue.created_at)),
        ("changed", moment(queue.updated_at)),
    ]
    print_facts(facts)


def _backoff(options: JobOptions) -> str:
    return f", doubling up to {span(options.retry_delay_max)}" if options.retry_backoff else ""

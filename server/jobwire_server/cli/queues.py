"""`jobwire queues`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import typer

from jobwire import Client, JobOptions, PurgeScope, QueueCounts, QueueInfo, QueueLimits, QueuePolicy
from jobwire_server.cli import draining, terms
from jobwire_server.cli.asking import YesOption, ask
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.ending import fail, say
from jobwire_server.cli.output import JsonOption, moment, print_facts, print_json, print_table, span

app = typer.Typer(
    help="List, create, show, change, pause, drain, purge and delete queues. Without a command: list them.",
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
DeadLetter = Annotated[
    str | None, typer.Option(metavar="QUEUE", help="Where a job that failed for good goes as a new one; '': nowhere.")
]
PolicyOption = Annotated[
    Literal["standard", "short", "singleton", "stately", "exclusive", "key_strict_fifo"] | None,
    typer.Option(help="How many jobs of a key wait and run."),
]
MaxActive = Annotated[str | None, typer.Option(metavar="N|none", help="How many of its jobs may be active at once.")]
RateOption = Annotated[
    str | None, typer.Option(metavar="N/SPAN|none", help="How many may start within a time, such as 10/1m.")
]
GroupMaxActive = Annotated[str | None, typer.Option(metavar="N|none", help="How many of each group may be active.")]
TierOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TIER=N|none", help="The same for groups of a tier; may be given several times."),
]
GroupRate = Annotated[str | None, typer.Option(metavar="N/SPAN|none", help="How many of each group may start.")]
Fair = Annotated[bool | None, typer.Option(help="Whether groups take turns.")]
WaitingRetention = Annotated[
    float | None,
    typer.Option(parser=terms.seconds, metavar="SPAN", help="How long a job may wait, such as 1d (0: forever)."),
]


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
        heads = ("queue", "ready", "scheduled", "active", "blocked", "failed", "oldest", "may wait", "rules")
        rows = [
            (
                queue.name,
                *_counts(queue),
                _oldest(queue),
                queue.max_depth or "-",
                ", ".join(terms.rules(queue)) or "-",
            )
            for queue in queues
        ]
        print_table(heads, rows)


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
    dead_letter: DeadLetter = None,
    max_data_bytes: MaxDataBytes = None,
    max_depth: MaxDepth = None,
    policy: PolicyOption = None,
    max_active: MaxActive = None,
    rate: RateOption = None,
    group_max_active: GroupMaxActive = None,
    tier: TierOption = None,
    group_rate: GroupRate = None,
    fair: Fair = None,
    waiting_retention: WaitingRetention = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Make sure that a queue exists. One that does is left as it is."""
    options = _options(retry_limit, retry_delay, retry_backoff, retry_delay_max, expire_in, retention, dead_letter)
    limits = terms.limits_over(
        QueueLimits(),
        max_active=max_active,
        rate=rate,
        group_max_active=group_max_active,
        tiers=tier,
        group_rate=group_rate,
    )
    queue = call(
        server,
        lambda client: client.admin.create_queue(
            name,
            options,
            max_data_bytes=max_data_bytes,
            max_depth=max_depth,
            policy=policy,
            limits=limits,
            fair=fair,
            waiting_retention=waiting_retention,
        ),
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
    dead_letter: DeadLetter = None,
    max_data_bytes: MaxDataBytes = None,
    max_depth: MaxDepth = None,
    policy: PolicyOption = None,
    max_active: MaxActive = None,
    rate: RateOption = None,
    group_max_active: GroupMaxActive = None,
    tier: TierOption = None,
    group_rate: GroupRate = None,
    fair: Fair = None,
    waiting_retention: WaitingRetention = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Change what holds for jobs published from now on; what is not given stays."""
    options = _options(retry_limit, retry_delay, retry_backoff, retry_delay_max, expire_in, retention, dead_letter)

    def over(base: QueueLimits) -> QueueLimits | None:
        return terms.limits_over(
            base,
            max_active=max_active,
            rate=rate,
            group_max_active=group_max_active,
            tiers=tier,
            group_rate=group_rate,
        )

    async def change(client: Client) -> QueueInfo:
        # The call replaces all limits at once, so those that were not named are looked up.
        limits = over(QueueLimits()) and over((await client.admin.get_queue(name)).limits)
        return await client.admin.update_queue(
            name,
            options,
            max_data_bytes=max_data_bytes,
            max_depth=max_depth,
            policy=policy,
            limits=limits,
            fair=fair,
            waiting_retention=waiting_retention,
        )

    _print(call(server, change), as_json=as_json)


@app.command()
def pause(name: NameArgument, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Have no job of a queue start any more. What runs goes on; publishing does too."""
    _print(call(server, lambda client: client.admin.pause_queue(name)), as_json=as_json)


@app.command()
def resume(name: NameArgument, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """End a pause."""
    _print(call(server, lambda client: client.admin.resume_queue(name)), as_json=as_json)


@app.command()
def drain(
    name: NameArgument,
    *,
    timeout: Annotated[
        float | None,
        typer.Option(parser=terms.seconds, metavar="SPAN", help="Wait no longer than this, such as 5m; then exit 1."),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Pause a queue and wait until nothing of it is active. It stays paused."""
    with draining.Bar() as show:
        queue = call(server, lambda client: draining.drain(client, name, timeout, show))
    if as_json:
        print_json(queue)
    if left := draining.active(queue):
        fail(f"{left:,} jobs of {name} are still active; it stays paused, `jobwire queues resume {name}` ends that")
    say(f"nothing of {name} is active; it stays paused, `jobwire queues resume {name}` ends that")


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
    dead_letter: str | None,
) -> JobOptions:
    return JobOptions(
        retry_limit=retry_limit,
        retry_delay=retry_delay,
        retry_backoff=retry_backoff,
        retry_delay_max=retry_delay_max,
        expire_in=expire_in,
        retention=retention,
        dead_letter=dead_letter,
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
    if queue.paused:
        facts.append(("paused", "none of its jobs starts; `jobwire queues resume` ends that"))
    facts += [
        ("policy", queue.policy),
        ("limits", _limits(queue)),
        ("retries", f"{options.retry_limit}, after {span(options.retry_delay)}{_backoff(options)}"),
        ("a run may take", span(options.expire_in)),
        ("kept when finished", span(options.retention)),
        ("failed for good", f"goes to {options.dead_letter}" if options.dead_letter else "stays here"),
        ("may wait for", "any time" if queue.waiting_retention is None else span(queue.waiting_retention)),
        ("may wait", f"{queue.max_depth:,} jobs" if queue.max_depth else "any number of jobs"),
        ("largest payload", f"{queue.max_data_bytes:,} bytes"),
        ("made", moment(queue.created_at)),
        ("changed", moment(queue.updated_at)),
    ]
    print_facts(facts)


def _limits(queue: QueueInfo) -> str:
    """Those that are neither the policy nor a pause."""
    bare = replace(queue, policy=QueuePolicy.STANDARD, paused=False)
    return "\n".join(terms.rules(bare)) or "none"


def _backoff(options: JobOptions) -> str:
    return f", doubling up to {span(options.retry_delay_max)}" if options.retry_backoff else ""

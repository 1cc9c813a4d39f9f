"""`jobwire schedules`."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import typer

from jobwire import Client, Cron, JobOptions, MissedRuns, NewJob, ScheduleInfo
from jobwire.schedules import When
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.ending import Code, fail, say
from jobwire_server.cli.output import JsonOption, moment, print_facts, print_json, print_table, span
from jobwire_server.cli.queues import ExpireIn, Retention, RetryBackoff, RetryDelay, RetryDelayMax, RetryLimit

app = typer.Typer(
    help="List, put, show, delete, pause, resume, run and preview schedules. Without a command: list them.",
    invoke_without_command=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="The schedule's name.")]
CronOption = Annotated[
    str | None, typer.Option(metavar="LINE", help="Due by a cron line of 5 fields, or 6 with the seconds first.")
]
TimeZone = Annotated[str, typer.Option(metavar="ZONE", help="The time zone of the cron line, such as Europe/Berlin.")]
EveryOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="Due each time so long has passed.")]
AtOption = Annotated[str | None, typer.Option(metavar="TIME", help="Due once, such as 2030-01-31T09:00:00+01:00.")]
QueueOption = Annotated[str, typer.Option("--queue", metavar="QUEUE", help="Only those of this queue.")]


@app.callback()
def _schedules(context: typer.Context, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        list_schedules(server=server, as_json=as_json)


@app.command("list")
def list_schedules(
    *, queue: QueueOption = "", server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False
) -> None:
    """List all schedules, or those of one queue."""

    async def work(client: Client) -> list[ScheduleInfo]:
        return [schedule async for schedule in client.admin.list_schedules(queue)]

    schedules = call(server, work)
    if as_json:
        for schedule in schedules:
            print_json(_plain(schedule))
        return
    rows = [
        (each.name, each.queue, _said(each.when), each.state, moment(each.next_run_at), each.run_count, _trouble(each))
        for each in schedules
    ]
    print_table(("schedule", "queue", "when", "state", "next run", "runs", "trouble"), rows)


@app.command()
def show(name: NameArgument, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Show a schedule: what it makes, when, and what became of it."""
    _print(call(server, lambda client: client.admin.get_schedule(name)), as_json=as_json)


@app.command()
def put(  # noqa: PLR0913  (a schedule has as many sides)
    name: NameArgument,
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="Where its jobs go; made if it does not exist.")],
    data: Annotated[str, typer.Argument(metavar="[JSON]", help="The payload of its jobs.")] = "null",
    *,
    cron: CronOption = None,
    time_zone: TimeZone = "UTC",
    every: EveryOption = None,
    at: AtOption = None,
    missed: Annotated[
        Literal["skip", "once", "all"], typer.Option(help="What becomes of due times that were missed.")
    ] = "skip",
    missed_limit: Annotated[int | None, typer.Option(help="How many --missed all makes up for (1 to 1000).")] = None,
    tolerance: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How late a run may be without having been missed.")
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher is delivered first (-32768 to 32767).")] = 0,
    key: Annotated[str | None, typer.Option(help="What its jobs are about; others of the key are minded.")] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header; may be repeated.")] = None,
    retry_limit: RetryLimit = None,
    retry_delay: RetryDelay = None,
    retry_backoff: RetryBackoff = None,
    retry_delay_max: RetryDelayMax = None,
    expire_in: ExpireIn = None,
    retention: Retention = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Make a schedule, or replace what it was. It must say when: --cron, --every or --at."""
    options = JobOptions(
        retry_limit=retry_limit,
        retry_delay=retry_delay,
        retry_backoff=retry_backoff,
        retry_delay_max=retry_delay_max,
        expire_in=expire_in,
        retention=retention,
    )
    job = NewJob(_payload(data), priority=priority, headers=_headers(header or []), options=options, key=key)
    when = _when(cron, time_zone, every, at)
    schedule = call(
        server,
        lambda client: client.admin.put_schedule(
            name, queue, when, job, missed=missed, missed_limit=missed_limit, tolerance=tolerance
        ),
    )
    _print(schedule, as_json=as_json, created=schedule.created)


@app.command()
def delete(name: NameArgument, *, server: ServerOption = DEFAULT_SERVER) -> None:
    """Delete a schedule. The jobs it has made stay."""
    call(server, lambda client: client.admin.delete_schedule(name))
    say(f"schedule {name} is deleted")


@app.command()
def pause(name: NameArgument, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Have a schedule make no jobs until it is resumed."""
    _print(call(server, lambda client: client.admin.pause_schedule(name)), as_json=as_json)


@app.command()
def resume(name: NameArgument, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Have a paused schedule go on."""
    _print(call(server, lambda client: client.admin.resume_schedule(name)), as_json=as_json)


@app.command()
def run(name: NameArgument, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Make a job of a schedule now, paused or not. Prints its id."""
    published = call(server, lambda client: client.admin.run_schedule(name))
    if as_json:
        print_json(published)
    else:
        typer.echo(published.job_id)


@app.command()
def preview(
    name: Annotated[str | None, typer.Argument(metavar="[SCHEDULE]", help="A schedule that exists.")] = None,
    *,
    cron: CronOption = None,
    time_zone: TimeZone = "UTC",
    every: EveryOption = None,
    at: AtOption = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many due times.")] = 10,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Print when a schedule is due next, or what may become one, by the clocks of its time zone."""
    if (name is None) == (cron is None and every is None and at is None):
        fail("name a schedule, or say when: --cron, --every or --at", Code.USAGE)

    async def work(client: Client) -> tuple[list[datetime], When]:
        when = _when(cron, time_zone, every, at) if name is None else (await client.admin.get_schedule(name)).when
        return await client.admin.preview_schedule(when if name is None else name, count), when

    due_times, when = call(server, work)
    zone = ZoneInfo(when.time_zone) if isinstance(when, Cron) else None
    for due in due_times:
        if as_json:
            print_json({"due_time": due.astimezone(zone)})
        else:
            typer.echo(due.astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %Z"))


def _when(cron: str | None, time_zone: str, every: float | None, at: str | None) -> When:
    if sum(given is not None for given in (cron, every, at)) != 1:
        fail("say when it is due: one of --cron, --every and --at", Code.USAGE)
    if cron is not None:
        return Cron(cron, time_zone)
    try:
        if every is not None:
            return timedelta(seconds=every)
        moment = datetime.fromisoformat(at or "")
    except (ValueError, OverflowError) as error:
        fail(f"the time is not understood: {error}", Code.USAGE)
    # What has no offset is meant as the clock here shows it.
    return moment.astimezone() if moment.tzinfo is None else moment


def _payload(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        fail(f"the payload is not JSON: {error}", Code.USAGE)


def _headers(given: list[str]) -> dict[str, str]:
    headers = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not mark:
            fail(f"a header is NAME=VALUE, not {text!r}", Code.USAGE)
        headers[name] = value
    return headers


def _said(when: When) -> str:
    match when:
        case Cron():
            return f"{when.line} {when.time_zone}"
        case timedelta():
            return f"every {span(when.total_seconds())}"
        case datetime():
            return f"once, {moment(when)}"


def _trouble(schedule: ScheduleInfo) -> str:
    """The error, if no run came after it."""
    at, ran = schedule.last_error_at, schedule.last_run_at
    return "-" if at is None or (ran is not None and ran > at) else schedule.last_error


def _plain(schedule: ScheduleInfo) -> dict[str, Any]:
    return dataclasses.asdict(schedule) | {"when": _plain_when(schedule.when)}


def _plain_when(when: When) -> dict[str, object]:
    match when:
        case Cron():
            return {"cron": when.line, "time_zone": when.time_zone}
        case timedelta():
            return {"every": when.total_seconds()}
        case datetime():
            return {"at": when}


def _print(schedule: ScheduleInfo, *, as_json: bool, created: bool | None = None) -> None:
    if as_json:
        print_json(_plain(schedule))
        return
    facts: list[tuple[str, object]] = [("schedule", schedule.name)]
    if created is not None:
        facts.append(("made", "now" if created else f"before, {moment(schedule.created_at)}; replaced"))
    bound = f", the last {schedule.missed_limit:,}" if schedule.missed is MissedRuns.ALL else ""
    facts += [
        ("state", schedule.state),
        ("queue", schedule.queue),
        ("when", _said(schedule.when)),
        ("next run", moment(schedule.next_run_at)),
        ("missed runs", f"{schedule.missed}{bound}; missed after {span(schedule.tolerance)}"),
        ("runs", f"{schedule.run_count:,}"),
    ]
    if schedule.last_run_at:
        facts.append(("last run", f"{moment(schedule.last_run_at)}, job {schedule.last_job_id}"))
    if schedule.last_error_at:
        facts.append(("last error", f"{moment(schedule.last_error_at)}: {schedule.last_error}"))
    if schedule.key:
        facts.append(("key", schedule.key))
    facts.append(("data", json.dumps(schedule.data, ensure_ascii=False)))
    facts += [(f"header {name}", value) for name, value in schedule.headers.items()]
    print_facts(facts)

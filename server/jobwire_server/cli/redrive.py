"""`jobwire redrive`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from jobwire import Client, LetterRefusal, Redriven
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.ending import Code, fail, say
from jobwire_server.cli.output import JsonOption, print_json, print_table

app = typer.Typer()

_SHOWN = 20
_REASONS = {
    LetterRefusal.POLICY: "another job of its key is in the way",
    LetterRefusal.QUEUE_NOT_FOUND: "the queue does not exist",
    LetterRefusal.KEY_MISSING: "it has no key, and the queue needs one",
    LetterRefusal.NO_ORIGIN: "it has no origin; --to sends it somewhere",
    LetterRefusal.WENT_ON: "it failed here and went on to another dead letter queue",
}


@app.command()
def redrive(  # noqa: PLR0913  (there are as many ways to choose)
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The dead letter queue.")],
    *,
    to: Annotated[str, typer.Option(metavar="QUEUE", help="Where they go; else each to where it comes from.")] = "",
    origin: Annotated[str, typer.Option(metavar="QUEUE", help="Only those that come from this queue.")] = "",
    error: Annotated[str, typer.Option(metavar="TYPE", help="Only those whose last error was of this type.")] = "",
    after: Annotated[str, typer.Option(metavar="TIME", help="Only those that failed then or later.")] = "",
    before: Annotated[str, typer.Option(metavar="TIME", help="Only those that failed before.")] = "",
    finished: Annotated[bool, typer.Option("--finished", help="Take those too that have finished there.")] = False,
    limit: Annotated[int, typer.Option(help="The most to be sent back; 0: all.")] = 0,
    rate: Annotated[float, typer.Option(help="How many of them start in a second; 0: at once.")] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Send jobs of a dead letter queue back to work. The exit code is 1 if some of them could not be."""
    failed_after, failed_before = _moment("--after", after), _moment("--before", before)
    taken: Counter[str] = Counter()
    refused: list[Redriven] = []

    async def work(client: Client) -> None:
        console = Console(stderr=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("0 jobs", total=None)
            async for result in client.admin.redrive(
                queue,
                to,
                origin_queue=origin,
                error_type=error,
                failed_after=failed_after,
                failed_before=failed_before,
                finished=finished,
                limit=limit,
                rate=rate,
                dry_run=dry_run,
            ):
                if as_json:
                    print_json(dataclasses.asdict(result))
                if result.refusal is LetterRefusal.NONE:
                    taken[result.queue] += 1
                else:
                    refused.append(result)
                progress.update(task, description=f"{taken.total():,} jobs, {len(refused):,} stay")

    try:
        call(server, work)
    finally:
        _report(taken, refused, dry_run=dry_run, as_json=as_json)
    if refused:
        raise typer.Exit(Code.NEGATIVE)


def _moment(option: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        fail(f"{option}: {text!r} is no time such as 2030-01-31T09:00:00+01:00", Code.USAGE)


def _report(taken: Counter[str], refused: list[Redriven], *, dry_run: bool, as_json: bool) -> None:
    if not as_json:
        print_table(("went to" if not dry_run else "would go to", "jobs"), sorted(taken.items()))
        if refused:
            rows = [(each.job_id, _REASONS.get(each.refusal, each.refusal), each.met_job_id) for each in refused]
            print_table(("stays", "why", "met"), rows[:_SHOWN])
    if len(refused) > _SHOWN and not as_json:
        say(f"and {len(refused) - _SHOWN:,} more stay")

"""`jobwire publish`."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, BinaryIO, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from jobwire import Client, Group, InvalidArgument, JobOptions, JobwireError, NewJob, NotCreatedReason
from jobwire.convert import spec_from
from jobwire.limits import JobLabels
from jobwire.wire import MAX_CALL_BYTES
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call, code_of
from jobwire_server.cli.ending import Code, fail, say
from jobwire_server.cli.output import JsonOption, print_json
from jobwire_server.cli.terms import seconds

app = typer.Typer()

_BATCH = 500
_FRAME_BYTES = 5
"""What a job's tag and length add to a call at most."""
_WHY = {
    NotCreatedReason.DUPLICATE_ID: "its id is known already",
    NotCreatedReason.POLICY: "the queue's policy allows no further job of its key now",
    NotCreatedReason.THROTTLED: "there was one of its key in this slot of time",
    NotCreatedReason.DEBOUNCED: "there is one of its key for the next slot of time",
    NotCreatedReason.NOT_UNIQUE: "there was one of its key lately",
    NotCreatedReason.OTHER: "for a reason that this version does not know",
}
_JOB_INDEX = re.compile(r"jobs\[(\d+)\]")


@app.command()
def publish(  # noqa: PLR0913  (a job has that many sides)
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue; made if it does not exist.")],
    data: Annotated[
        str, typer.Argument(metavar="[JSON|-]", help="The payload, or - for standard input, one job a line.")
    ] = "-",
    *,
    priority: Annotated[int, typer.Option(help="Higher is delivered first (-32768 to 32767).")] = 0,
    start_in: Annotated[float | None, typer.Option(metavar="SECONDS", help="Deliver it no sooner than this.")] = None,
    key: Annotated[str | None, typer.Option(help="What it is about; others of its key are minded.")] = None,
    group: Annotated[str | None, typer.Option(help="Whom it is done for.")] = None,
    tier: Annotated[str | None, typer.Option(help="The kind of group.")] = None,
    throttle: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="SPAN", help="One of its key in each slot of this length, such as 1m."),
    ] = None,
    debounce: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="SPAN", help="The same, but the second one starts with the next slot."),
    ] = None,
    unique_for: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="SPAN", help="One of its key within any time of this length."),
    ] = None,
    dead_letter: Annotated[
        str | None, typer.Option(metavar="QUEUE", help="Where it goes as a new job if it fails for good.")
    ] = None,
    retry_limit: Annotated[int | None, typer.Option(help="How often it is tried again (0 to 1000).")] = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Publish one job, or one for each line of standard input.

    Prints the id of one job; if it was not stored, that of the job in its way, and why. Lines go out in batches of 500,
    in order; at a bad line it stops, names the line, and all lines before it are published.
    """
    if tier is not None and group is None:
        fail("--tier says of which kind a group is: give --group as well", Code.USAGE)
    labels = JobLabels(
        key=key,
        group=None if group is None else Group(group, tier or ""),
        throttle=throttle,
        debounce=debounce,
        unique_for=unique_for,
    )
    options = JobOptions(dead_letter=dead_letter, retry_limit=retry_limit)
    terms = _Terms(queue, priority, start_in, None if options == JobOptions() else options, labels)
    if data == "-":
        if sys.stdin.isatty():
            say("Reading jobs from the terminal, one a line; Ctrl-D ends.")
        _publish_lines(server, terms, sys.stdin.buffer, as_json=as_json)
        return
    try:
        job = terms.job(data)
    except ValueError as error:
        fail(f"the payload is not JSON: {error}", Code.USAGE)
    published = call(server, lambda client: client.publish_many(queue, [job]))[0]
    if as_json:
        print_json(published)
    else:
        sys.stdout.write(f"{published.job_id}\n")
    if not published.created:
        say(f"not stored: {_WHY[published.reason]}; it met job {published.met_job_id}")


@dataclass(frozen=True)
class _Terms:
    """What holds for all jobs of a call."""

    queue: str
    priority: int
    start_in: float | None
    options: JobOptions | None
    labels: JobLabels

    def job(self, text: str) -> NewJob:
        """The job with this payload. Raises ValueError if it is not JSON or cannot travel."""
        try:
            payload = json.loads(text, parse_constant=_refuse)
        except RecursionError:
            raise ValueError("it is nested too deeply; at most 64 levels are taken") from None
        return NewJob(payload, priority=self.priority, start_in=self.start_in, options=self.options, **self.labels)


class _Stopped(Exception):
    """No further: why, and with which exit code."""

    def __init__(self, why: str, code: Code) -> None:
        super().__init__(why)
        self.code = code


@dataclass
class _Batch:
    """Jobs that travel in one call, so all or none are stored, and the numbers of the lines they came from."""

    jobs: list[NewJob] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, job: NewJob, line: int, size: int) -> None:
        self.jobs.append(job)
        self.lines.append(line)
        self.size += size


def _publish_lines(server: str, terms: _Terms, source: BinaryIO, *, as_json: bool) -> None:
    started = time.monotonic()
    publication = _Publication(terms.queue, as_json=as_json)

    async def work(client: Client) -> _Stopped | None:
        with _bar(source) as advance:
            try:
                for batch in _batches(terms, source, advance):
                    await publication.send(client, batch)
            except _Stopped as stopped:
                return stopped
        return None

    stopped = call(server, work)
    if stopped is not None:
        fail(f"{stopped}\n{publication.count:,} jobs were published, all lines before that one", stopped.code)
    if not as_json:
        say(f"published {publication.created:,} jobs to {terms.queue} in {time.monotonic() - started:.1f} s")
        for reason, count in publication.not_stored.items():
            say(f"{count:,} were not stored: {_WHY[reason]}")


def _batches(terms: _Terms, source: BinaryIO, advance: Callable[[int], None]) -> Iterator[_Batch]:
    """The jobs of the lines that are not blank. Raises _Stopped at a bad line, after a batch of what came before it."""
    batch = _Batch()
    for number, line in enumerate(source, start=1):
        advance(len(line))
        if not line.strip():
            continue
        try:
            job = terms.job(line.decode())
            size = spec_from(job).ByteSize() + _FRAME_BYTES
        except (ValueError, InvalidArgument) as error:
            yield batch
            raise _Stopped(f"line {number} is not JSON that can be published: {error}", Code.USAGE) from error
        if len(batch.jobs) == _BATCH or batch.size + size > MAX_CALL_BYTES:
            yield batch
            batch = _Batch()
        batch.add(job, number, size)
    yield batch


class _Publication:
    """Publishes batches, tells of them, and counts."""

    def __init__(self, queue: str, *, as_json: bool) -> None:
        self._queue = queue
        self._as_json = as_json
        self.count = 0
        """Those that were not stored included."""
        self.not_stored: Counter[NotCreatedReason] = Counter()

    @property
    def created(self) -> int:
        """Those that were stored."""
        return self.count - self.not_stored.total()

    async def send(self, client: Client, batch: _Batch) -> None:
        """Publishes a batch. If the server refuses one of its jobs, those before it are published; raises _Stopped."""
        try:
            await self._publish(client, batch.jobs)
        except InvalidArgument as error:
            bad = _index_of_bad(error)
            if bad is None:
                raise
            await self._publish(client, batch.jobs[:bad])
            rule = _JOB_INDEX.sub("", error.message, count=1).lstrip(".")
            raise _Stopped(f"line {batch.lines[bad]} is refused: {rule}", Code.USAGE) from error
        except JobwireError as error:
            doubt = f"lines {batch.lines[0]} to {batch.lines[-1]} may have been published or not"
            raise _Stopped(f"{error.message}; {doubt}", code_of(error)) from error

    async def _publish(self, client: Client, jobs: list[NewJob]) -> None:
        results = await client.publish_many(self._queue, jobs) if jobs else []
        self.count += len(results)
        self.not_stored.update(result.reason for result in results if not result.created)
        if self._as_json:
            for result in results:
                print_json(result)


def _index_of_bad(error: InvalidArgument) -> int | None:
    for violation in error.field_violations:
        if match := _JOB_INDEX.match(violation.field):
            return int(match[1])
    return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@contextmanager
def _bar(source: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Shows how much has been read, in bytes of a file or in lines of a pipe; gives what takes each line's size."""
    status = os.fstat(source.fileno())
    of_file = stat.S_ISREG(status.st_mode)
    ends = TaskProgressColumn() if of_file else MofNCompleteColumn()
    columns = (TextColumn("publishing"), BarColumn(), ends, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=status.st_size if of_file else None)
        yield lambda size: progress.advance(task, size if of_file else 1)

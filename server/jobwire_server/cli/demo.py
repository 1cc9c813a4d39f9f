"""`jobwire demo`: one real job through server, worker and PostgreSQL, each in a process of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobwire import Client, JobInfo, JobState, JobwireError
from jobwire_server.cli.calling import access
from jobwire_server.cli.children import Child, ChildError, child
from jobwire_server.cli.ending import Code, fail
from jobwire_server.cli.settings import database_is_set
from jobwire_server.embedded import EmbeddedPostgres, EmbeddedPostgresError

app = typer.Typer()

_QUEUE = "excel-parse"
_FILE_KEY = "uploads/rotations.xlsx"
_JOB_SECONDS = 300.0

console = Console(highlight=False)


class _Failed(Exception):
    """The demo did not get to its end."""


@dataclass(frozen=True)
class _Measured:
    """What the demo found out. Durations in seconds."""

    job: JobInfo
    parse: float
    publish: float
    whole: float
    second_read: float


@app.command()
def demo(
    *,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the demo keeps its files, logs and database.")
    ] = Path(".data/demo"),
) -> None:
    """Parse a large workbook through the queue, and show what that takes.

    Starts a PostgreSQL of its own (unless DATABASE_URL names one), the server and the Excel worker, and stops them all.
    """
    try:
        with _postgres(data) as url:
            measured = asyncio.run(_interruptible(_run(data, url)))
    except (_Failed, ChildError, EmbeddedPostgresError, JobwireError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(Code.INTERRUPTED) from None
    _print(measured)


@contextmanager
def _postgres(data: Path) -> Iterator[str | None]:
    data.mkdir(parents=True, exist_ok=True)
    if database_is_set():
        yield None
        return
    postgres = EmbeddedPostgres(data / "postgres")
    with console.status("starting PostgreSQL"), _clocked() as clock:
        postgres.start()
    with postgres:
        _tell("PostgreSQL", f"{postgres.version}, embedded, in {postgres.data_dir}", clock.seconds)
        yield postgres.dsn


async def _interruptible(work: Any) -> Any:
    """Does `work`; SIGTERM ends it as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run(data: Path, url: str | None) -> _Measured:
    storage = data / "storage"
    excel = _excel()
    _make_workbook(excel, storage / _FILE_KEY)
    parse = _parse_here(excel, storage)
    async with AsyncExitStack() as stack:
        server, address = await _start_server(stack, data, url)
        work = [sys.executable, "-m", "jobwire_workers.excel_parse", "--server", address]
        command = [*work, "--storage", str(storage), "--queue", _QUEUE]
        worker = await stack.enter_async_context(child("worker", command, data / "worker.log"))
        _tell("worker", f"excel_parse on queue {_QUEUE}, log in {worker.log}")
        client = await stack.enter_async_context(Client(address, **access()))
        await client.admin.create_queue(_QUEUE)
        with _clocked() as whole:
            with _clocked() as publish:
                published = await client.publish(_QUEUE, {"file_key": _FILE_KEY})
            _tell("job", f"{published.job_id}, published", publish.seconds)
            job = await _unless_ended(_follow(client, published.job_id), server, worker)
        if job.state is not JobState.COMPLETED:
            said = "; ".join(f"{error.type}: {error.message}" for error in job.errors)
            raise worker.failure(f"left the job {job.state} ({said})")
        with _clocked() as second:
            excel.read_clean(excel.open_store(str(storage)), job.output["clean_key"])
    _tell("stopped", "worker and server")
    return _Measured(job, parse, publish.seconds, whole.seconds, second.seconds)


def _excel() -> Any:
    # The worker belongs to another package, which the server does not need for anything but this.
    try:
        from jobwire_workers import excel_parse  # noqa: PLC0415
    except ImportError as error:
        raise _Failed(f"the demo runs the reference worker: install jobwire-workers ({error})") from error
    return excel_parse


def _make_workbook(excel: Any, path: Path) -> None:
    from jobwire_workers.excel_parse.sample import write_sample  # noqa: PLC0415  (as above)

    path.parent.mkdir(parents=True, exist_ok=True)
    # A clean copy that an earlier demo left must not make this one look better than it is.
    (path.parent / Path(excel.clean_key(path.name))).unlink(missing_ok=True)
    if path.exists():
        _tell("workbook", f"{path}, {path.stat().st_size / 1e6:.1f} MB, made before")
        return
    unfinished = path.with_suffix(".new")
    with console.status("making a workbook of real data"), _clocked() as clock:
        write_sample(unfinished)
        unfinished.rename(path)
    _tell("workbook", f"{path}, {path.stat().st_size / 1e6:.1f} MB, made", clock.seconds)


def _parse_here(excel: Any, storage: Path) -> float:
    """How long a request would take that parses the workbook itself."""
    with _bar("parsing as a request would") as show, _clocked() as clock:
        excel.parse_workbook(excel.open_store(str(storage)), _FILE_KEY, show)
    (storage / excel.clean_key(_FILE_KEY)).unlink()
    return clock.seconds


async def _start_server(stack: AsyncExitStack, data: Path, url: str | None) -> tuple[Child, str]:
    environment = {
        "JOBWIRE_LISTEN": "127.0.0.1:0",
        "JOBWIRE_HTTP_LISTEN": "127.0.0.1:0",
        "JOBWIRE_LOG_FORMAT": "json",
        "JOBWIRE_LOG_LEVEL": "info",
    }
    if url is not None:
        environment["JOBWIRE_DATABASE_URL"] = url
    with console.status("starting the server"), _clocked() as clock:
        server = await stack.enter_async_context(
            child("server", [sys.executable, "-m", "jobwire_server", "serve"], data / "server.log", environment)
        )
        address = str((await server.logged("serving"))["grpc"])
    _tell("server", f"gRPC on {address}, log in {server.log}", clock.seconds)
    return server, address


async def _follow(client: Client, job_id: str) -> JobInfo:
    with _bar("waiting for the worker") as show:

        def on_change(job: JobInfo) -> None:
            if job.state is JobState.COMPLETED:
                show(1.0, "done")
            elif job.progress and job.progress.fraction is not None:
                show(job.progress.fraction, job.progress.note)

        return await client.wait(job_id, _QUEUE, timeout=_JOB_SECONDS, on_change=on_change)


async def _unless_ended(work: Any, *children: Child) -> Any:
    """Does `work`, unless one of the processes ends meanwhile, which is an error."""
    tasks = [asyncio.ensure_future(work), *(asyncio.ensure_future(each.ended()) for each in children)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Clock:
    seconds = 0.0


@contextmanager
def _clocked() -> Iterator[_Clock]:
    clock = _Clock()
    started = time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - started


@contextmanager
def _bar(waiting: str) -> Iterator[Any]:
    """A progress bar; gives what takes a fraction and a note."""
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(waiting, total=1.0)
        yield lambda fraction, note: progress.update(task, completed=fraction, description=escape(note))


def _tell(what: str, text: str, seconds: float | None = None) -> None:
    took = "" if seconds is None else f" [dim]({_short(seconds)})[/dim]"
    console.print(f"[bold]{what:<11}[/bold] {escape(text)}{took}", soft_wrap=True)


def _print(measured: _Measured) -> None:
    job, output = measured.job, measured.job.output
    kinds = Counter(column["type"] for column in output["types"])
    assert job.started_at is not None
    assert job.finished_at is not None
    run = (job.finished_at - job.started_at).total_seconds()
    console.print()
    _tell("result", f"{output['rows']:,} rows, {output['columns']} columns in sheet {output['sheet']!r}")
    _tell("types", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    _tell("clean data", output["clean_key"])
    preview = Table(title="the first rows, cleaned", title_justify="left")
    width = min(len(output["preview"][0]), max(3, console.width // 16))
    for column in output["types"][:width]:
        preview.add_column(f"{escape(column['name'])}\n[dim]{column['type']}[/dim]", overflow="ellipsis", no_wrap=True)
    for row in output["preview"]:
        preview.add_row(*("" if cell is None else escape(str(cell)) for cell in row[:width]))
    console.print(preview)
    times = Table(title="what a request waits for", title_justify="left", show_header=False)
    times.add_row("parsing the workbook in the request", _short(measured.parse), style="red")
    times.add_row("publishing a job instead", _short(measured.publish), style="green")
    times.add_row("the job, from its publish to its result", f"{_short(measured.whole)}, of which it ran {_short(run)}")
    times.add_row("reading the clean data from then on", _short(measured.second_read), style="green")
    console.print(times)


def _short(seconds: float) -> str:
    return f"{seconds * 1_000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"

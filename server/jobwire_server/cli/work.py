"""`jobwire work`."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import Annotated, Any, Literal

import typer
import typer.core

from jobwire import JobwireError, Worker
from jobwire_server import logs
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, access, code_of
from jobwire_server.cli.commands import CommandHandler, Guard
from jobwire_server.cli.ending import Code, fail

_Level = Literal["debug", "info", "warning", "error"]
_NO_LIMIT = 366 * 24 * 3600.0


class _CommandAfterDashes(typer.core.TyperCommand):
    """A command whose arguments after `--` are another command, taken as they are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.obj = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARGS]..."]


app = typer.Typer()


@app.command(cls=_CommandAfterDashes)
def work(
    context: typer.Context,
    queues: Annotated[list[str], typer.Argument(metavar="QUEUE", help="Where to take jobs from.")],
    *,
    concurrency: Annotated[
        int,
        typer.Option("--concurrency", "-c", min=1, max=1000, metavar="N", help="Jobs at once, of all queues together."),
    ] = 1,
    kill_after: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="From TERM to KILL, for a command that is to stop.")
    ] = 5.0,
    stop_grace: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=_NO_LIMIT,
            metavar="SECONDS",
            help="How long running commands may finish when the worker stops; else for as long as their jobs may run.",
        ),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    log_format: Annotated[logs.Format, typer.Option(envvar="JOBWIRE_LOG_FORMAT", help="How lines look.")] = "auto",
    log_level: Annotated[_Level, typer.Option(envvar="JOBWIRE_LOG_LEVEL", help="What is logged.")] = "info",
) -> None:
    """Run a command for each job of some queues, until SIGTERM or Ctrl-C.

    The job's payload is its standard input; JOBWIRE_JOB_ID, JOBWIRE_QUEUE, JOBWIRE_ATTEMPT and so on are in its
    environment. Exit code 0 completes the job, with what it printed as output if that is JSON, else the last line. 65
    fails it for good, 75 gives it back for later, any other fails this run with the end of its standard error. Lines
    such as `0.5 half of it` that it writes to the file $JOBWIRE_PROGRESS are the job's progress.

    Commands that run when the worker is told to stop may finish; a second signal ends them and gives their jobs back.
    """
    command: list[str] = context.obj
    if not command:
        fail("which command? Name it after `--`: jobwire work mail -- ./send-mail", Code.USAGE)
    if shutil.which(command[0]) is None:
        fail(f"there is no program {command[0]!r} that can be run", Code.USAGE)
    logs.configure(log_format, log_level)
    worker = Worker(server, stop_grace=_NO_LIMIT if stop_grace is None else stop_grace, **access())
    with Guard() as guard:
        handler = CommandHandler(command, {**os.environ, "JOBWIRE_SERVER": server}, kill_after, guard)
        try:
            worker.handler(*queues, concurrency=concurrency)(handler)
            asyncio.run(worker.run())
        except ValueError as error:
            fail(str(error), Code.USAGE)
        except JobwireError as error:
            fail(error.message, code_of(error))

"""The command line, `jobwire`.

Results go to standard output, everything else to standard error. A command is a module of this package that bears its
name and has an `app`; it is imported when it is called, so that quick commands are quick.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import typer
import typer.core
import typer.main

_COMMANDS = (
    "serve",
    "migrate",
    "recover",
    "publish",
    "work",
    "job",
    "jobs",
    "queues",
    "redrive",
    "keys",
    "schedules",
    "sessions",
    "actions",
    "top",
    "demo",
    "version",
)

GRPC_EXPERIMENTS = "-event_engine_listener"
"""gRPC reads this when it is imported. Its newer listener has threads of its own, which hand each event to the thread
that hands it to the event loop: twice the wake-ups, and a sixth more CPU for a call that does nothing else."""

_EXIT_CODES = """
Exit codes: 0 all went well; 1 the answer is no (a job failed or was cancelled, migrations are pending, the start was
refused); 2 wrong usage, settings or input; 3 no such job, queue, schedule or session; 4 the server or the database is
not available.
"""


class _Commands(typer.core.TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (typer's signature)
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  (typer's signature)
        if cmd_name not in _COMMANDS:
            return None
        command = typer.main.get_command(importlib.import_module(f"{__name__}.{cmd_name}").app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # What a traceback shows of variables may be a password.
    pretty_exceptions_enable=False,
    epilog=_EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _jobwire() -> None:
    """Jobwire: a job queue as a service, one gRPC server in front of one PostgreSQL."""


def main() -> None:
    """Runs the command that the process's arguments name."""
    # gRPC's core writes to standard error past all logging; what it says reaches us as errors too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)
    app(prog_name="jobwire")

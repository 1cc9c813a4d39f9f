"""What the commands share that call a server: how to reach it, and what its errors mean for the exit code."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from jobwire import (
    Access,
    Client,
    DeadlineExceeded,
    InvalidArgument,
    JobwireError,
    NotFound,
    Unavailable,
    access_from_environment,
)
from jobwire_server.cli.ending import Code, fail

ServerOption = Annotated[
    str, typer.Option("--server", envvar="JOBWIRE_SERVER", metavar="HOST:PORT", help="The server's address.")
]
DEFAULT_SERVER = "127.0.0.1:50051"

_TIMEOUT = 5.0
"""How long a person waits for each call, in seconds, repetitions included."""

Result = TypeVar("Result")


def access() -> Access:
    """TLS and token as JOBWIRE_CA_FILE and JOBWIRE_TOKEN say; in the environment only, since `ps` shows arguments."""
    try:
        return access_from_environment()
    except ValueError as error:
        fail(str(error), Code.USAGE)


def call(server: str, work: Callable[[Client], Awaitable[Result]]) -> Result:
    """Does `work` with a client of the server; what goes wrong ends the command."""

    async def run() -> Result:
        async with Client(server, timeout=_TIMEOUT, actor=_actor(), **access()) as client:
            return await work(client)

    try:
        return asyncio.run(run())
    except JobwireError as error:
        fail(error.message, code_of(error))
    except KeyboardInterrupt:
        raise typer.Exit(Code.INTERRUPTED) from None


def _actor() -> str:
    """Who calls, for the record of what operators do."""
    return os.environ.get("JOBWIRE_ACTOR") or f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return str(os.getuid())


def code_of(error: JobwireError) -> Code:
    """The exit code for an error."""
    match error:
        case InvalidArgument():
            return Code.USAGE
        case NotFound():
            return Code.NOT_FOUND
        case Unavailable() | DeadlineExceeded():
            return Code.UNAVAILABLE
        case _:
            return Code.NEGATIVE

"""How a command ends: its exit code, and what it says to a person."""

from __future__ import annotations

import enum
import sys
from typing import NoReturn

import typer


class Code(enum.IntEnum):
    """Exit codes; `jobwire --help` documents them."""

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    INTERRUPTED = 130


def say(message: str) -> None:
    """Tells a person something, beside the results."""
    sys.stderr.write(message + "\n")


def fail(message: str, code: Code = Code.NEGATIVE) -> NoReturn:
    """Ends the command with a message."""
    say(f"jobwire: {message}")
    raise typer.Exit(code)

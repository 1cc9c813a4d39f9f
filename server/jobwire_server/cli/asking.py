"""What a command asks before it does what cannot be undone."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobwire_server.cli.ending import Code, fail, say

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def ask(question: str, *, yes: bool) -> None:
    """Ends the command unless a person says yes, or has said so before."""
    if yes:
        return
    say(f"{question}\nGo on? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("nothing was changed", Code.NEGATIVE)

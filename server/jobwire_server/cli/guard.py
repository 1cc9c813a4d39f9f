"""Ends the commands of a `jobwire work` that died before it could: a program of its own, run by its path.

It is told of each process group that begins (`+ID`) and ends (`-ID`), and when it hears no more, ends what is left. It
imports next to nothing, so that it is small.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GRACE = 5.0
"""How long what is left may take to end before it is killed, in seconds."""


def main() -> None:
    """Listens on standard input until it ends."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    send(groups, signal.SIGTERM)
    until = time.monotonic() + GRACE
    while time.monotonic() < until and send(groups, 0):
        time.sleep(0.05)
    send(groups, signal.SIGKILL)


def send(groups: set[int], number: int) -> bool:
    """Signals process groups (0: none, only look); returns whether any is left."""
    found = False
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            found = True
    return found


if __name__ == "__main__":
    main()

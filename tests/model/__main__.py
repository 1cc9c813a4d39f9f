"""`make model`: plays against the model until so many steps were done; exit code 1 if the store did something else."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from jobwire_server.embedded import EmbeddedPostgres

from .machine import run
from .page import table
from .play import Disagreement, Theatre


def main() -> int:
    # As Ctrl-C does, so that nothing that was started is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="how many (default 200,000; the tests do 12,000)")
    parser.add_argument("--table", action="store_true", help="print the table of transitions for the docs, and stop")
    said = parser.parse_args()
    if said.table:
        sys.stdout.write(table())
        return 0
    with contextlib.ExitStack() as stack:
        dsn = os.environ.get("JOBWIRE_DATABASE_URL") or os.environ.get("DATABASE_URL")
        if not dsn:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jobwire-model-"))
            dsn = stack.enter_context(EmbeddedPostgres(Path(folder) / "pg", settings={"fsync": "off"})).dsn
        schema = f"model_{secrets.token_hex(5)}"
        stack.callback(_drop, dsn, schema)
        theatre = stack.enter_context(Theatre.opened(dsn, schema))
        begin = time.monotonic()
        try:
            run(theatre, said.steps)
        except Disagreement as error:
            sys.stdout.write(f"{error}\n")
            return 1
        finally:
            seconds = time.monotonic() - begin
            sys.stderr.write(f"{theatre.steps:,} steps in {seconds:.0f} s\n")
    return 0


def _drop(dsn: str, schema: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


if __name__ == "__main__":
    sys.exit(main())

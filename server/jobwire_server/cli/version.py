"""`jobwire version`."""

from __future__ import annotations

import sys

import typer

from jobwire_server import __version__

app = typer.Typer()


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"{__version__}\n")

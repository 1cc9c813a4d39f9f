"""`jobwire top`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from jobwire import Client, JobwireError
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.looks import look
from jobwire_server.cli.output import JsonOption, print_json
from jobwire_server.cli.screen import screen

app = typer.Typer()


@app.command()
def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it, and end.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", "-n", min=0.2, max=3600, metavar="SECONDS", help="From look to look.")
    ] = 2.0,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Watch queues, workers and failures, until q or Ctrl-C.

    `waiting/s` is by how many jobs what waits grows or shrinks, `failed/s` how many more have failed, both between two
    looks; ~ marks an estimate. Where output is no terminal it looks once, with --json at each interval.
    """
    if as_json:
        call(server, lambda client: _lines(client, interval, once=once))
    elif once or not sys.stdout.isatty():
        Console().print(screen(call(server, lambda client: look(client, None))))
    else:
        call(server, lambda client: _watch(client, server, interval))


async def _lines(client: Client, interval: float, *, once: bool) -> None:
    """One JSON object for each look."""
    last = await look(client, None)
    print_json(last)
    while not once:
        await asyncio.sleep(interval)
        last = await look(client, last)
        print_json(last)


async def _watch(client: Client, server: str, interval: float) -> None:
    console = Console()
    left = asyncio.Event()
    last = await look(client, None)
    trouble = ""
    with _keys(left), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            head = Text(f"{server}, every {interval:g} s; q leaves", style="dim")
            if trouble:
                head = Text(f"{trouble}; what is shown is older", style="red")
            live.update(Group(head, Text(), screen(last, console.height)), refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await left.wait()
            if left.is_set():
                return
            try:
                last = await look(client, last)
                trouble = ""
            except JobwireError as error:
                trouble = error.message


@contextlib.contextmanager
def _keys(left: asyncio.Event) -> Iterator[None]:
    """Sets the event when q is pressed; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()

    def pressed() -> None:
        # Nothing: the terminal is gone.
        if (keys := os.read(keyboard, 64)) == b"" or b"q" in keys.lower():
            left.set()

    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        loop.add_reader(keyboard, pressed)
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

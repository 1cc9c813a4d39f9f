"""`jobwire keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from jobwire import BlockedKey, Client, Unblocked, UnblockStatus
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.ending import Code
from jobwire_server.cli.output import JsonOption, moment, print_json, print_table

app = typer.Typer(help="List and free keys that a failed job holds up, in queues of policy key_strict_fifo.")

QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")]
KeyArguments = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="The keys.")]
AllOption = Annotated[bool, typer.Option("--all", help="All keys that are held up now.")]


@app.command("list")
def list_keys(queue: QueueArgument, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """List the keys of a queue that a failed job holds up."""
    keys = call(server, lambda client: _blocked(client, queue))
    if as_json:
        for key in keys:
            print_json(key)
        return
    print_table(
        ("key", "failed job", "since", "waiting"), [(k.key, k.job_id, moment(k.since), k.waiting) for k in keys]
    )


@app.command()
def skip(
    queue: QueueArgument,
    keys: KeyArguments = None,
    *,
    everything: AllOption = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Leave the failed jobs failed, and have the next ones of their keys go on."""
    _unblock("skip", queue, keys, everything=everything, server=server, as_json=as_json)


@app.command()
def retry(
    queue: QueueArgument,
    keys: KeyArguments = None,
    *,
    everything: AllOption = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Bring the failed jobs back, each first in its key, with all their retries."""
    _unblock("retry", queue, keys, everything=everything, server=server, as_json=as_json)


@app.command("dead-letter")
def dead_letter(
    queue: QueueArgument,
    keys: KeyArguments = None,
    *,
    everything: AllOption = False,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Send the failed jobs to the queue's dead letter queue, and have the next ones of their keys go on."""
    _unblock("dead_letter", queue, keys, everything=everything, server=server, as_json=as_json)


async def _blocked(client: Client, queue: str) -> list[BlockedKey]:
    return [key async for key in client.admin.list_blocked_keys(queue)]


def _unblock(action: str, queue: str, keys: list[str] | None, *, everything: bool, server: str, as_json: bool) -> None:
    if bool(keys) == everything:
        raise typer.BadParameter("name keys, or say --all")

    async def work(client: Client) -> list[Unblocked]:
        wanted = [key.key for key in await _blocked(client, queue)] if everything else keys or []
        calls = {
            "skip": client.admin.skip_keys,
            "retry": client.admin.retry_keys,
            "dead_letter": client.admin.dead_letter_keys,
        }
        return await calls[action](queue, wanted)

    results = call(server, work)
    for result in results:
        if as_json:
            print_json(result)
    if not as_json:
        print_table(("key", "failed job", "result"), [(r.key, r.job_id or "-", r.status) for r in results])
    if any(result.status is not UnblockStatus.DONE for result in results):
        raise typer.Exit(Code.NEGATIVE)

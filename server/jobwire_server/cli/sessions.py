"""`jobwire sessions`."""

from __future__ import annotations

from typing import Annotated

import typer

from jobwire import Client, QueueShare, SessionInfo
from jobwire_server.cli.calling import DEFAULT_SERVER, ServerOption, call
from jobwire_server.cli.output import JsonOption, moment, print_facts, print_json, print_table

app = typer.Typer(
    help="List the workers' sessions with what they run, and ask one to leave. Without a command: list them.",
    invoke_without_command=True,
)

QueueOption = Annotated[str, typer.Option("--queue", metavar="QUEUE", help="Only those that take its jobs.")]
RunningOption = Annotated[int, typer.Option("--running", metavar="N", help="How many running jobs to name of each.")]

_NAMED = 3


@app.callback()
def _sessions(context: typer.Context, *, server: ServerOption = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        list_sessions(server=server, as_json=as_json)


@app.command("list")
def list_sessions(
    *,
    queue: QueueOption = "",
    running: RunningOption = _NAMED,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """List the sessions of all replicas, and what each of them runs."""

    async def fetch(client: Client) -> list[SessionInfo]:
        return [session async for session in client.admin.list_sessions(queue, max_running=running)]

    sessions = call(server, fetch)
    if as_json:
        for session in sessions:
            print_json(session)
        return
    print_table(
        ("session", "worker", "queues", "runs", "state"), [_row(session) for session in sessions], whole=["session"]
    )
    if rows := [row for session in sessions for row in _running(session)]:
        print_table(("worker", "queue", "job", "since"), rows, whole=["job"])


@app.command()
def drain(
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session, as `sessions list` shows it.")],
    *,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Ask a session's worker to leave: it takes no more jobs, finishes what it runs, and ends."""
    since = call(server, lambda client: client.admin.drain_session(session_id))
    if as_json:
        print_json({"id": session_id, "quiet_at": since})
    else:
        print_facts([("session", session_id), ("asked to leave", moment(since))])


def _row(session: SessionInfo) -> tuple[str, ...]:
    said = {share.queue: share for share in session.shares}
    queues = ", ".join(_share(said.get(queue) or QueueShare(queue)) for queue in session.queues)
    return session.id, session.worker, queues, f"{session.in_flight} of {session.max_in_flight}", _state(session)


def _share(share: QueueShare) -> str:
    facts = [f"weight {share.weight}"] if share.weight != 1 else []
    facts += [f"at most {share.max_in_flight}"] if share.max_in_flight is not None else []
    if share.min_priority is not None or share.max_priority is not None:
        lowest = "" if share.min_priority is None else share.min_priority
        highest = "" if share.max_priority is None else share.max_priority
        facts.append(f"priority {lowest}..{highest}")
    return f"{share.queue} ({', '.join(facts)})" if facts else share.queue


def _state(session: SessionInfo) -> str:
    state = f"without a stream since {moment(session.detached_at)}" if session.detached_at else "attached"
    return f"{state}, asked to leave {moment(session.quiet_at)}" if session.quiet_at else state


def _running(session: SessionInfo) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (session.worker, job.queue, job.job_id, moment(job.since)) for job in session.running
    ]
    left = session.in_flight - len(rows)
    return [*rows, (session.worker, "", f"and {left:,} more", "")] if left > 0 else rows

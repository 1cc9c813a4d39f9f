"""How `jobwire top` looks: the tables of one look, as many lines of each as fit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from jobwire import QueueCounts, SessionInfo
from jobwire_server.cli.looks import Failure, Look, QueueLine

_FRAME_LINES = 10
"""Headings and blank lines of all tables, and the line at the top."""
_LEAST_LINES = 3

_QUEUES = ("queue", "ready", "scheduled", "blocked", "active", "failed", "oldest", "waiting/s", "failed/s")
_SESSIONS = ("worker", "queues", "runs", "state", "jobs")
_FAILURES = ("failed", "queue", "job", "error")


def screen(look: Look, height: int | None = None) -> Group:
    """All tables; at most so many lines, if a height is given."""
    queues, sessions, failures = _shares(height, (len(look.queues), len(look.sessions), len(look.failures)))
    now = datetime.now(UTC)
    parts: list[RenderableType] = []
    for columns, numbers, rows, room in (
        (_QUEUES, range(1, 9), [_queue(line) for line in _most_first(look.queues)], queues),
        (_SESSIONS, (2,), [_session(session, now) for session in _busiest_first(look.sessions)], sessions),
        (_FAILURES, (), [_failure(failure) for failure in look.failures], failures),
    ):
        parts += [_table(columns, numbers, rows, room), Text()]
    return Group(*parts[:-1])


def _shares(height: int | None, wanted: Sequence[int]) -> list[int]:
    """How many lines each table gets: what it wants, or an equal part of what the smaller ones leave."""
    if height is None:
        return list(wanted)
    given = [0] * len(wanted)
    room = height - _FRAME_LINES
    for left, place in zip(
        range(len(wanted), 0, -1), sorted(range(len(wanted)), key=lambda place: wanted[place]), strict=True
    ):
        given[place] = min(wanted[place], max(_LEAST_LINES, room // left))
        room -= given[place]
    return given


def _table(columns: Sequence[str], numbers: Sequence[int], rows: Sequence[Sequence[str]], room: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = rows if len(rows) <= room else rows[: room - 1]
    for index, name in enumerate(columns):
        # If it is too narrow, the last column is cut.
        needs = max(len(cell) for cell in (name, *(row[index] for row in shown))) if index < len(columns) - 1 else None
        justify: JustifyMethod = "right" if index in numbers else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", min_width=needs)
    for row in shown:
        table.add_row(*(Text(cell) for cell in row))
    if len(shown) < len(rows):
        table.add_row(Text(f"and {len(rows) - len(shown):,} more", style="dim"))
    return table


def _most_first(lines: Sequence[QueueLine]) -> list[QueueLine]:
    return sorted(lines, key=lambda line: (-(line.counts.ready + line.counts.active), -line.waiting, line.name))


def _busiest_first(sessions: Sequence[SessionInfo]) -> list[SessionInfo]:
    return sorted(sessions, key=lambda session: (-session.in_flight, session.worker, session.id))


def _queue(line: QueueLine) -> list[str]:
    counts = line.counts
    numbers = (counts.ready, counts.scheduled, counts.blocked, counts.active, counts.failed)
    return [
        line.name,
        *(_number(number, counts) for number in numbers),
        _age(counts.oldest_ready_age),
        _rate(line.waiting_per_second, signed=True),
        _rate(line.failed_per_second, signed=False),
    ]


def _number(number: int, counts: QueueCounts) -> str:
    about = "~" if counts.exact_up_to and number > counts.exact_up_to else ""
    return f"{about}{number:,}"


def _session(session: SessionInfo, now: datetime) -> list[str]:
    state = "attached"
    if session.detached_at:
        state = f"away for {_age((now - session.detached_at).total_seconds())}"
    if session.quiet_at:
        state += ", leaving"
    jobs = [f"{job.queue} {job.job_id} for {_age((now - job.since).total_seconds())}" for job in session.running]
    if session.in_flight > len(jobs):
        jobs.append(f"and {session.in_flight - len(jobs):,} more")
    runs = f"{session.in_flight:,} of {session.max_in_flight:,}"
    return [session.worker, ", ".join(session.queues), runs, state, ", ".join(jobs)]


def _failure(failure: Failure) -> list[str]:
    error = f"{failure.type}: {failure.message}" if failure.type else "-"
    return [
        f"{failure.at.astimezone():%m-%d %H:%M:%S}" if failure.at else "-",
        failure.queue,
        failure.job_id,
        " ".join(error.split()),
    ]


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    for size, unit, smaller, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // smaller}{name}"
    return f"{whole}s"


def _rate(per_second: float | None, *, signed: bool) -> str:
    if per_second is None:
        return "-"
    digits = 0 if abs(per_second) >= 100 else 1
    return f"{per_second:+,.{digits}f}" if signed else f"{max(0.0, per_second):,.{digits}f}"

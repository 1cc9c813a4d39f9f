"""What `jobwire top` makes of looks at a server: rates between two of them, and a screen of as many lines as fit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from jobwire import QueueCounts, SessionInfo
from jobwire.sessions import RunningJob
from jobwire_server.cli.looks import Failure, Look, QueueLine, lines_since, newest
from jobwire_server.cli.screen import screen

NOW = datetime.now(UTC)
LONG = timedelta(days=3, hours=2, minutes=10)
"""An age whose text no slow test changes."""


def counts(ready: int = 0, scheduled: int = 0, active: int = 0, **others: object) -> QueueCounts:
    return QueueCounts(ready, scheduled, active, **others)  # type: ignore[arg-type]


def session(worker: str, in_flight: int = 0, running: int = 0, **changes: object) -> SessionInfo:
    jobs = tuple(RunningJob("mail", f"job-{n}", 1, NOW - LONG) for n in range(running))
    facts: dict[str, object] = {
        "id": f"session of {worker}",
        "worker": worker,
        "queues": ("mail", "print"),
        "shares": (),
        "max_in_flight": 10,
        "in_flight": in_flight,
        "running": jobs,
        "replica": "r",
        "opened_at": NOW,
        "attached_at": NOW,
        "detached_at": None,
        "renewed_at": NOW,
        "quiet_at": None,
    }
    return SessionInfo(**(facts | changes))  # type: ignore[arg-type]


def failure(n: int, at: datetime | None = NOW) -> Failure:
    return Failure("mail", f"job-{n}", at, "ValueError", f"number {n}\nand more")


def shown(look: Look, height: int | None = None, width: int = 160) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(screen(look, height))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_rates_are_those_between_two_looks() -> None:
    [first] = lines_since(None, 100.0, {"mail": counts(10, 5, failed=2)})
    assert (first.waiting_per_second, first.failed_per_second) == (None, None)
    before = Look(100.0, [first], [], [])
    mail, new = lines_since(before, 104.0, {"mail": counts(2, 5, 1, blocked=4, failed=10), "print": counts(3)})
    assert (mail.waiting_per_second, mail.failed_per_second) == (-1.0, 2.0)
    assert new.waiting_per_second is None


def test_failures_are_kept_newest_first_and_once() -> None:
    many = [failure(n, NOW + timedelta(seconds=n)) for n in range(15)]
    assert [each.job_id for each in newest([*many, *many, failure(99, None)])] == [f"job-{n}" for n in range(14, 4, -1)]


def test_a_look_is_shown_with_the_busiest_first() -> None:
    lines = [
        QueueLine("idle", counts()),
        QueueLine(
            "mail",
            counts(1_234_567, 2, 3, blocked=4, failed=5, exact_up_to=100_000, oldest_ready_age=3_725),
            12.34,
            0.5,
        ),
        QueueLine("print", counts(5, oldest_ready_age=42), -1_200.4, 0.0),
    ]
    sessions = [
        session("lazy"),
        session("busy", in_flight=4, running=2),
        session("away", in_flight=1, detached_at=NOW - LONG, quiet_at=NOW),
    ]
    text = shown(Look(0.0, lines, sessions, [failure(1)]))
    assert text[:4] == [
        "queue ready scheduled blocked active failed oldest waiting/s failed/s",
        "mail ~1,234,567 2 4 3 5 1h 2m +12.3 0.5",
        "print 5 0 0 0 0 42s -1,200 0.0",
        "idle 0 0 0 0 0 - - -",
    ]
    assert text[6].startswith(
        "busy mail, print 4 of 10 attached mail job-0 for 3d 2h, mail job-1 for 3d 2h, and 2 more"
    )
    assert text[7] == "away mail, print 1 of 10 away for 3d 2h, leaving and 1 more"
    assert text[8] == "lazy mail, print 0 of 10 attached"
    assert text[11].endswith("mail job-1 ValueError: number 1 and more")


@pytest.mark.parametrize("height", [20, 30, 100])
def test_a_screen_is_never_longer_than_the_terminal(height: int) -> None:
    look = Look(
        0.0,
        [QueueLine(f"queue-{n:02}", counts(100 - n)) for n in range(40)],
        [session(f"worker-{n}") for n in range(30)],
        [failure(n) for n in range(10)],
    )
    text = shown(look, height)
    assert len(text) <= height - 2
    if height < 100:
        assert any(line.startswith("and ") and line.endswith(" more") for line in text)
    else:
        assert len([line for line in text if line.startswith("queue-")]) == 40

"""The table of transitions as docs/architecture.md shows it."""

from __future__ import annotations

from pathlib import Path

from jobwire_server.domain.transitions import OVER, RUNNING, TABLE, WAITING, Row, Standing

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
HEAD = "| event | from | to | counted |"
_SETS = {WAITING: "any waiting", RUNNING: "any active", WAITING | OVER: "any waiting or finished"}


def table() -> str:
    """The table."""
    return "\n".join([HEAD, "|---|---|---|---|", *map(_line, TABLE)]) + "\n"


def _line(row: Row) -> str:
    when = f", {row.when.value}" if row.when.value else ""
    return f"| {row.event.value}{when} | {_standings(row.before)} | {row.after.value} | {_counts(row)} |"


def _standings(before: frozenset[Standing]) -> str:
    return _SETS.get(before) or ", ".join(standing.value for standing in Standing if standing in before)


def _counts(row: Row) -> str:
    counts = row.counts
    said = {
        "retries and losses from 0": row.anew,
        "a delivery": counts.attempt,
        "a retry": counts.retry_count,
        "a loss": counts.loss_count,
        "a release": counts.release_count,
        "an error": counts.errors,
    }
    return ", ".join(name for name, count in said.items() if count)

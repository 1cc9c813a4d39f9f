"""What the database itself says of a run: every claim ever made, kept by a trigger beside the schema, and the end."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from jobwire_server.domain.jobs import JobState
from jobwire_server.domain.queues import Policy
from tests.chaos.history import Claim, EndState, Outcome, Rate, Rules

Connection = psycopg.Connection[Any]

_STATES = {4: "completed", 5: "cancelled", 6: "failed"}

_KEEP_CLAIMS = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.claim (LIKE jobwire.claim, begun timestamptz NOT NULL DEFAULT transaction_timestamp());
ALTER TABLE chaos.claim ALTER ids SET STORAGE PLAIN, ALTER attempts SET STORAGE PLAIN;
CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos.claim SELECT * FROM jobwire.claim WHERE queue = NEW.queue AND token = NEW.token AND ids <> '{}';
    RETURN NULL;
END $$;
-- As it is committed: what a Publish handed over and took back in one transaction was nobody's.
CREATE CONSTRAINT TRIGGER note AFTER INSERT ON jobwire.claim DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION chaos.note();
"""

_OUTCOMES = """
SELECT queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, state, token, errors,
    extract(epoch FROM created_at)::float8 AS created, extract(epoch FROM finished_at)::float8 AS finished,
    start_after > created_at + interval '50 milliseconds' AS scheduled
FROM jobwire.archive
"""

_LIVE = "SELECT queue, id, state FROM jobwire.job_record WHERE finished_at IS NULL"

_CLAIMS = """
SELECT *, extract(epoch FROM claimed_at)::float8 AS t, extract(epoch FROM begun)::float8 AS began
FROM chaos.claim ORDER BY claimed_at
"""

_RULES = "SELECT * FROM jobwire.queue"

# The slot of a job that failed for good is its key's, where the order of keys is strict.
_LEFT_BEHIND = """
SELECT row.* FROM (
    SELECT 'slot' AS table, s.queue, s.id FROM jobwire.slot s WHERE NOT s.failed
    UNION ALL SELECT 'blocked', b.queue, b.id FROM jobwire.blocked b
    UNION ALL SELECT 'gate_event', e.queue, e.id FROM jobwire.gate_event e
) row WHERE NOT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = row.queue AND j.id = row.id)
"""

# Jobs that are not finished, but for those that wait behind one that failed, and what the gates have not looked at yet.
_UNSETTLED = """
SELECT (SELECT count(*) FROM jobwire.gate_event) + (SELECT count(*) FROM jobwire.live_job j WHERE NOT EXISTS (
    SELECT FROM jobwire.blocked b JOIN jobwire.slot s ON s.queue = b.queue AND s.gate = b.gate AND s.failed
    WHERE b.queue = j.queue AND b.id = j.id)) AS jobs
"""


def keep_claims(connection: Connection) -> None:
    """Has every claim kept from now on."""
    connection.execute(_KEEP_CLAIMS)


def end_state(connection: Connection) -> EndState:
    """What the database says now, its times put on the machine's monotonic clock. Its rows are named tuples."""
    now = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8 AS now").fetchone()
    assert now is not None
    shift = time.monotonic() - now.now
    # A million rows come in pieces.
    with connection.transaction(), connection.cursor("outcomes") as outcomes, connection.cursor("claims") as claims:
        return EndState(
            [_outcome(row, shift) for row in outcomes.execute(_OUTCOMES)],
            [(row.queue, str(row.id), JobState(row.state).name.lower()) for row in connection.execute(_LIVE)],
            [_claim(row, shift) for row in claims.execute(_CLAIMS)],
            {row.name: _rules(row) for row in connection.execute(_RULES)},
            [(row.table, row.queue, str(row.id)) for row in connection.execute(_LEFT_BEHIND)],
        )


def unsettled(connection: Connection) -> int:
    """How many jobs have no outcome yet that will have one."""
    row = connection.execute(_UNSETTLED).fetchone()
    assert row is not None
    return int(row.jobs)


def _rules(row: Any) -> Rules:
    return Rules(
        Policy(row.policy),
        row.max_active,
        _rate(row.rate_starts, row.rate_ms),
        row.group_limit,
        row.group_tiers,
        _rate(row.group_rate_starts, row.group_rate_ms),
        row.fair,
    )


def _rate(starts: int | None, period_ms: int | None) -> Rate | None:
    return None if starts is None or period_ms is None else Rate(starts, period_ms / 1000)


def _outcome(row: Any, shift: float) -> Outcome:
    return Outcome(
        row.queue,
        str(row.id),
        row.seq,
        -row.rank,
        row.attempt,
        row.retry_count,
        row.loss_count,
        row.release_count,
        row.retry_limit,
        _STATES[row.state],
        "" if row.token is None else str(row.token),
        row.created + shift,
        row.finished + shift,
        row.scheduled,
        [(error["attempt"], error["type"], error["worker"]) for error in row.errors or ()],
    )


def _claim(row: Any, shift: float) -> Claim:
    ids = [str(job_id) for job_id in row.ids]
    session, t, begun = str(row.session_id), row.t + shift, row.began + shift
    return Claim(row.queue, str(row.token), session, row.epoch, row.worker, t, ids, row.attempts, begun)

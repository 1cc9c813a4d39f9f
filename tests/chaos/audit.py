"""What the database itself says of a run: every claim ever made, kept by a trigger beside the schema, and the end."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from tests.chaos.history import Claim, EndState, Outcome

Connection = psycopg.Connection[Any]

_STATES = {4: "completed", 5: "cancelled", 6: "failed"}

_KEEP_CLAIMS = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.claim (LIKE jobwire.claim);
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

_CLAIMS = "SELECT *, extract(epoch FROM claimed_at)::float8 AS t FROM chaos.claim ORDER BY claimed_at"


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
            [(row.queue, str(row.id), str(row.state)) for row in connection.execute(_LIVE)],
            [_claim(row, shift) for row in claims.execute(_CLAIMS)],
        )


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
    return Claim(
        row.queue, str(row.token), str(row.session_id), row.epoch, row.worker, row.t + shift, ids, row.attempts
    )

"""Looking at jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from jobwire_server.domain.jobs import Job, JobFailure, JobState, Labels, Origin, Progress
from jobwire_server.domain.queues import JobOptions

from . import arrays
from .database import Database, Row


async def get_job(database: Database, queues: Sequence[str], job_id: UUID) -> Job | None:
    """The job of this id in one of the queues; the newest, should there be several."""
    rows = await database.once("get_job", {"queues": arrays.texts(queues), "id": job_id})
    return job_from(rows[0]) if rows else None


async def revisions(
    database: Database, jobs: Sequence[tuple[str, UUID]]
) -> dict[tuple[str, UUID], tuple[str, JobState]]:
    """The revision and state of several jobs at once; jobs that are gone are left out."""
    rows = await database.once(
        "revisions",
        {"queues": arrays.texts(queue for queue, _ in jobs), "ids": arrays.uuids(job_id for _, job_id in jobs)},
    )
    return {(row.queue, row.id): (_revision(row), JobState(row.state)) for row in rows}


def _revision(row: Row) -> str:
    return f"{row.state}.{row.attempt}.{row.progress_count}"


def job_from(row: Row) -> Job:
    """A row of `job_record` as a job."""
    progress = row.progress
    return Job(
        queue=row.queue,
        id=row.id,
        state=JobState(row.state),
        data=row.data,
        headers=row.headers,
        priority=-row.rank,
        options=JobOptions(
            row.retry_limit,
            row.retry_delay_ms,
            row.retry_backoff,
            row.retry_delay_max_ms,
            row.expire_ms,
            row.retention_ms,
            row.dead_letter,
        ),
        attempt=row.attempt,
        retry_count=row.retry_count,
        loss_count=row.loss_count,
        release_count=row.release_count,
        progress=None if progress is None else Progress(progress["fraction"], progress["note"]),
        output=row.output,
        errors=tuple(_failure(error) for error in row.errors or ()),
        created_at=row.created_at,
        start_after=row.start_after,
        started_at=row.started_at,
        finished_at=row.finished_at,
        worker=row.worker or "",
        session_id=row.session_id,
        cancel_requested=row.stopping,
        revision=_revision(row),
        labels=Labels(row.key, row.group_id, row.tier),
        origin=None if row.origin is None else read_origin(row.origin),
        checkpoint=row.checkpoint,
        waits_at=row.waits_at,
    )


def _failure(error: dict[str, Any]) -> JobFailure:
    return JobFailure(
        error["attempt"],
        datetime.fromisoformat(error["time"]),
        error["type"],
        error["message"],
        error["trace"],
        error["worker"] or "",
        datetime.fromisoformat(error["started"]) if error.get("started") else None,
    )


def read_origin(origin: dict[str, Any]) -> Origin:
    """The job that a dead letter was made of, as stored with it."""
    first = origin.get("first", {})
    error = origin.get("error")
    return Origin(
        origin["queue"],
        UUID(origin["id"]),
        datetime.fromisoformat(origin["created"]),
        datetime.fromisoformat(origin["failed"]),
        origin["attempts"],
        None if error is None else _failure(error),
        first.get("queue"),
        UUID(first["id"]) if first else None,
        origin.get("redrives", 0),
    )

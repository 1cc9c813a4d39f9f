"""What workers say of their deliveries, whether they still hold them or not."""

from __future__ import annotations

from dataclasses import dataclass

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import (
    AckItem,
    AckResult,
    AckStatus,
    Complete,
    Extend,
    Fail,
    JobState,
    Release,
)
from jobwire_server.domain.transitions import Event, Standing
from jobwire_server.store import settling
from tests.model.model import Job, Model
from tests.model.names import handle_name
from tests.model.stage import Stage

Answer = tuple[str, str | None, int | None, int | None]
"""The status, the job's state, why it is to stop, and what is left of its time in minutes."""

_APPLIED_FIRST = (Complete, (Fail, Release), Extend)
"""One Ack's statements are applied in this order."""


@dataclass(frozen=True)
class Ack:
    """Several statements at once, each of another delivery."""

    replica: int
    items: tuple[AckItem, ...]

    async def do(self, stage: Stage) -> list[Answer]:
        done = await settling.settle(stage.databases[self.replica], self.items)
        for item, result in zip(self.items, done.results, strict=True):
            # Its pause is of seconds, which may pass while this runs: it is put off to where nothing happens by itself.
            if isinstance(item.outcome, Release) and item.outcome.delay_ms is None and result.state is JobState.RETRY:
                await stage.execute(
                    "UPDATE {s}.scheduled SET start_after = start_after + interval '1 day'"
                    " WHERE id = %(id)s AND start_after BETWEEN now() AND now() + interval '2 minutes'",
                    {"id": item.handle.job_id},
                )
        return [_answer(result) for result in done.results]

    def expect(self, model: Model) -> list[Answer]:
        answers: dict[Handle, Answer] = {}
        for kinds in _APPLIED_FIRST:
            for item in self.items:
                job = model.leased(item.handle)
                if job is not None and isinstance(item.outcome, kinds):
                    answers[item.handle] = _apply(model, job, item)
        return [answers.get(item.handle) or _refused(model, item.handle) for item in self.items]

    def __str__(self) -> str:
        return "ack: " + ", ".join(f"{handle_name(item.handle)} {_said(item)}" for item in self.items)


def _apply(model: Model, job: Job, item: AckItem) -> Answer:
    token, outcome = item.handle.token, item.outcome
    match outcome:
        case Complete():
            model.befall(job, Event.COMPLETE, by=token)
        case Fail():
            later = job.options.retry_delay_ms > 0 if outcome.retry_ms is None else outcome.retry_ms > 0
            model.befall(job, Event.FAIL, permanent=outcome.permanent, later=later, by=token)
        case Release():
            later = job.facts.counts.release_count > 0 if outcome.delay_ms is None else outcome.delay_ms > 0
            model.befall(job, Event.RELEASE, later=later, by=token)
        case Extend():
            age = model.claims[token].age
            if job.facts.standing is Standing.ACTIVE and outcome.expire_ms is not None:
                job.limit = age + outcome.expire_ms
            model.befall(job, Event.EXTEND)
            left = (job.limit if job.stop_at is None else job.stop_at) - age
            return _answer(AckResult(AckStatus.APPLIED, JobState.ACTIVE, job.stop, max(0, left)))
    # Where it waits now it waits for a retry, whatever it waits for besides.
    state = job.state if job.state.finished else JobState.RETRY
    return _answer(AckResult(AckStatus.CANCELLED if state is JobState.CANCELLED else AckStatus.APPLIED, state))


def _refused(model: Model, handle: Handle) -> Answer:
    job = model.jobs.get((handle.queue, handle.job_id))
    over = model.newest_outcome(handle.queue, handle.job_id)
    if job is not None:
        status = AckStatus.ALREADY_APPLIED if job.settled == handle.token else AckStatus.LEASE_LOST
        return _answer(AckResult(status, job.state))
    if over is None:
        return _answer(AckResult(AckStatus.NOT_FOUND))
    if over.facts.standing is Standing.CANCELLED:
        return _answer(AckResult(AckStatus.CANCELLED, over.facts.state))
    status = AckStatus.ALREADY_APPLIED if over.token == handle.token else AckStatus.LEASE_LOST
    return _answer(AckResult(status, over.facts.state))


def _answer(result: AckResult) -> Answer:
    # In whole minutes: what a run really takes does not count.
    minutes = None if result.expires_in_ms is None else round(result.expires_in_ms / 60_000)
    return (
        result.status.name,
        result.state.name if result.state else None,
        result.stop.value if result.stop else None,
        minutes,
    )


def _said(item: AckItem) -> str:
    match item.outcome:
        case Complete():
            return "complete"
        case Fail() as fail:
            after = "" if fail.retry_ms is None else f" again in {fail.retry_ms} ms"
            return ("fail for good" if fail.permanent else "fail") + after
        case Release(delay):
            return "release" if delay is None else f"release for {delay} ms"
        case Extend(limit):
            return "extend" if limit is None else f"extend to {limit} ms"


def any_of(items: list[AckItem]) -> tuple[AckItem, ...]:
    """As an Ack may name them: each delivery once."""
    return tuple({item.handle: item for item in items}.values())

"""Jobs are taken for sessions: by priority, then as they were stored, dealt out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.transitions import Event
from jobwire_server.store import claiming, settling
from jobwire_server.store.claiming import Want
from tests.model.model import Claim, Job, Model
from tests.model.names import handle_name, name
from tests.model.stage import Stage

Dealt = list[tuple[str, int, int]]
"""Deliveries in the order of claims: the handle, which delivery of the job it is, and how many retries it used up."""


def deal(model: Model, owner: UUID, wants: Sequence[Want], jobs: Sequence[Job | None]) -> Dealt:
    """The first jobs go to the sessions that are as they are said to be. None is a place that stays empty."""
    seats = []
    for place, want in enumerate(wants):
        session = model.sessions.get(want.session_id)
        if session is not None and (session.epoch, session.owner) == (want.epoch, owner):
            seats += [(want.before + turn, place, turn) for turn in range(1, want.count + 1)]
    dealt: Dealt = []
    for job, (_, place, turn) in zip(jobs, sorted(seats), strict=False):
        if job is None:
            continue
        want = wants[place]
        claim = model.claims.setdefault(want.token, Claim(job.queue, want.token, want.session_id))
        claim.ids += (job.id,)
        model.befall(job, Event.CLAIM)
        job.lease, job.limit = Handle(job.queue, job.id, want.token, turn), job.options.expire_ms
        dealt.append((handle_name(job.lease), job.facts.counts.attempt, job.facts.counts.retry_count))
    return dealt


@dataclass(frozen=True)
class ClaimJobs:
    """One claim for several sessions of a replica, or of one that was the replica before."""

    replica: int
    owner: UUID
    queue: str
    wants: tuple[Want, ...]

    async def do(self, stage: Stage) -> Dealt:
        claimed = await claiming.claim(stage.databases[self.replica], self.owner, self.queue, self.wants)
        return [(handle_name(d.handle), d.attempt, d.retry_count) for _, _, d in claimed]

    def expect(self, model: Model) -> Dealt:
        jobs = model.ready(self.queue, suspect=False)
        return [] if self.queue in model.paused else deal(model, self.owner, self.wants, jobs)

    def __str__(self) -> str:
        wants = ", ".join(f"{want.count} for {name(want.session_id)} epoch {want.epoch}" for want in self.wants)
        return f"{name(self.owner)} claims from {self.queue}: {wants}"


@dataclass(frozen=True)
class ClaimSuspect:
    """A claim of one job that was lost again and again."""

    replica: int
    owner: UUID
    queue: str
    want: Want

    async def do(self, stage: Stage) -> Dealt:
        claimed = await claiming.claim_suspect(stage.databases[self.replica], self.owner, self.queue, self.want)
        return [(handle_name(d.handle), d.attempt, d.retry_count) for _, _, d in claimed]

    def expect(self, model: Model) -> Dealt:
        jobs = model.ready(self.queue, suspect=True)[:1]
        return [] if self.queue in model.paused else deal(model, self.owner, [self.want], jobs)

    def __str__(self) -> str:
        return f"{name(self.owner)} claims a suspect from {self.queue} for {name(self.want.session_id)}"


@dataclass(frozen=True)
class GiveBack:
    """A claim whose result was lost is undone, or kept from coming to be."""

    replica: int
    queue: str
    token: UUID
    session: UUID

    async def do(self, stage: Stage) -> int:
        return await settling.give_back_claims(stage.databases[self.replica], self.queue, {self.token: self.session})

    def expect(self, model: Model) -> int:
        if self.session in model.sessions:
            model.claims.setdefault(self.token, Claim(self.queue, self.token, self.session))
        held = [job for job in model.leases() if job.lease is not None and job.lease.token == self.token]
        return sum(model.end_all(held, Event.RETURNED).values())

    def __str__(self) -> str:
        return f"the result of claim {name(self.token)} for {name(self.session)} was lost: it is given back"


@dataclass(frozen=True)
class Forget:
    """Claims all of whose deliveries are settled are removed."""

    replica: int
    claims: tuple[tuple[str, UUID], ...]

    async def do(self, stage: Stage) -> None:
        tokens: dict[str, list[UUID]] = {}
        for queue, token in self.claims:
            tokens.setdefault(queue, []).append(token)
        await settling.forget_claims(stage.databases[self.replica], tokens)

    def expect(self, model: Model) -> None:
        model.forget(token for _, token in self.claims)

    def __str__(self) -> str:
        return "claims are forgotten: " + " ".join(name(token) for _, token in self.claims)

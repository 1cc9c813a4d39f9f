"""Sessions open, go on elsewhere, and end; replicas go and come, and see each other's sessions."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.errors import SessionLost, SessionTakenOver
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.transitions import Event
from jobwire_server.store import sessions
from jobwire_server.store.sessions import Renewal, SessionTerms
from tests.model.model import Model, Session
from tests.model.names import handle_name, name, names
from tests.model.stage import QUEUES, Stage

_TERMS = SessionTerms("worker", tuple(queue.name for queue in QUEUES), 100, 60_000)
Ended = tuple[str, dict[str, int]] | None
"""Who owned a session, and how many jobs went back to which queue. None if it was not ended."""


@dataclass(frozen=True)
class Open:
    """A Subscribe call."""

    replica: int
    owner: UUID
    session: UUID

    async def do(self, stage: Stage) -> None:
        await sessions.open_session(stage.databases[self.replica], self.owner, self.session, _TERMS)

    def expect(self, model: Model) -> None:
        model.sessions[self.session] = Session(self.session, self.owner)

    def __str__(self) -> str:
        return f"{name(self.owner)} opens {name(self.session)}"


@dataclass(frozen=True)
class Resume:
    """A Subscribe call that goes on with a session, at a replica that may be another."""

    replica: int
    owner: UUID
    session: UUID
    epoch: int
    held: tuple[Handle, ...]

    async def do(self, stage: Stage) -> object:
        database = stage.databases[self.replica]
        try:
            done = await sessions.resume_session(database, self.owner, self.session, self.epoch, self.held, _TERMS)
        except (SessionLost, SessionTakenOver) as error:
            return type(error).__name__
        held = sorted((handle_name(handle), suspect) for handle, suspect in done.held.items())
        return done.epoch, name(done.previous_owner), held, [handle_name(h) for h in done.lost], done.given_back

    def expect(self, model: Model) -> object:
        session = model.sessions.get(self.session)
        if session is None:
            return "SessionLost"
        if self.epoch != 0 and self.epoch <= session.epoch:
            return "SessionTakenOver"
        before = session.owner
        session.epoch = self.epoch or session.epoch + 1
        session.owner = self.owner
        session.renewals += 1
        jobs = model.leases(self.session)
        held = {job.lease: job.facts.suspect for job in jobs if job.lease in self.held}
        given_back = model.end_all([job for job in jobs if job.lease not in self.held], Event.RETURNED)
        tokens = {handle.token for handle in held if handle is not None}
        model.forget(
            [c.token for c in list(model.claims.values()) if c.session == session.id and c.token not in tokens]
        )
        going_on = sorted((handle_name(handle), suspect) for handle, suspect in held.items() if handle is not None)
        lost = [handle_name(handle) for handle in self.held if handle not in held]
        return session.epoch, name(before), going_on, lost, given_back

    def __str__(self) -> str:
        held = " ".join(map(handle_name, self.held)) or "nothing"
        return f"{name(self.session)} resumes at {name(self.owner)}, epoch {self.epoch or 'next'}, holding {held}"


@dataclass(frozen=True)
class End:
    """A session ends, if it still is as the one who ends it knows it. `received`: losses that are counted."""

    replica: int
    session: UUID
    epoch: int | None
    renewals: int | None
    received: frozenset[Handle] = frozenset()

    async def do(self, stage: Stage) -> Ended:
        ended = await sessions.end_session(
            stage.databases[self.replica],
            self.session,
            epoch=self.epoch,
            renewals=self.renewals,
            received=lambda: self.received,
        )
        return ended and (name(ended.owner), ended.given_back)

    def expect(self, model: Model) -> Ended:
        session = model.sessions.get(self.session)
        if session is None or self.epoch not in (None, session.epoch) or self.renewals not in (None, session.renewals):
            return None
        del model.sessions[self.session]
        given_back: dict[str, int] = {}
        for job in model.leases(self.session):
            model.befall(job, Event.LOST if job.lease in self.received else Event.RETURNED)
            given_back[job.queue] = given_back.get(job.queue, 0) + 1
        model.forget([claim.token for claim in list(model.claims.values()) if claim.session == self.session])
        return name(session.owner), given_back

    def __str__(self) -> str:
        lost = " ".join(map(handle_name, self.received)) or "nothing"
        return f"{name(self.session)} ends at epoch {self.epoch}, renewals {self.renewals}, losing {lost}"


@dataclass(frozen=True)
class Renew:
    """A replica raises the counters of sessions it takes for its own."""

    replica: int
    owner: UUID
    epochs: tuple[tuple[UUID, int], ...]

    async def do(self, stage: Stage) -> list[str]:
        database = stage.databases[self.replica]
        async with database.connection() as connection:
            said = {id_: Renewal(epoch, _TERMS.max_in_flight, None) for id_, epoch in self.epochs}
            return sorted(map(name, await sessions.renew(database, connection, self.owner, said)))

    def expect(self, model: Model) -> list[str]:
        mine = []
        for id_, epoch in self.epochs:
            session = model.sessions.get(id_)
            if session is not None and (session.owner, session.epoch) == (self.owner, epoch):
                session.renewals += 1
                mine.append(name(id_))
        return sorted(mine)

    def __str__(self) -> str:
        return f"{name(self.owner)} renews {names(id_ for id_, _ in self.epochs)}"


@dataclass(frozen=True)
class Park:
    """A replica drains."""

    replica: int
    owner: UUID

    async def do(self, stage: Stage) -> None:
        await sessions.park(stage.databases[self.replica], self.owner, 300_000)

    def expect(self, model: Model) -> None:
        for session in model.sessions.values():
            session.renewals += session.owner == self.owner

    def __str__(self) -> str:
        return f"{name(self.owner)} drains"


@dataclass(frozen=True)
class Sight:
    """A replica looks for the sessions of others."""

    replica: int
    owner: UUID

    async def do(self, stage: Stage) -> list[tuple[str, int, int]]:
        database = stage.databases[self.replica]
        async with database.connection() as connection:
            found = await sessions.sight(database, connection, self.owner, ())
        return sorted((name(each.id), each.epoch, each.renewals) for each in found)

    def expect(self, model: Model) -> list[tuple[str, int, int]]:
        return sorted((name(each.id), each.epoch, each.renewals) for each in model.sessions.values())

    def __str__(self) -> str:
        return f"{name(self.owner)} looks for sessions"

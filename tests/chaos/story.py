"""A history written by hand: a small model of the service that plays a correct run, step by step, for tests to spoil.

Each step takes a hundredth of a second. Nothing goes wrong by itself: a test says what is cut, killed or lost, and what
the database did about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from jobwire_server.domain.handles import Handle
from tests.chaos import history
from tests.chaos.checker import check
from tests.chaos.history import Claim, EndState, Event, Outcome, Terms
from tests.chaos.invariants.report import Report

QUEUE = "work"
STEP = 0.01


def job_id(name: str) -> str:
    return str(uuid5(NAMESPACE_OID, name))


@dataclass
class Row:
    """A live job."""

    id: str
    seq: int
    priority: int
    created: float
    scheduled: bool
    retry_limit: int = 2
    attempt: int = 1
    retry_count: int = 0
    loss_count: int = 0
    release_count: int = 0
    state: str = "created"


@dataclass
class Story:
    """The run: its time, what was written down, and the database."""

    t: float = 1000.0
    events: list[Event] = field(default_factory=list)
    end: EndState = field(default_factory=EndState)
    rows: dict[str, Row] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    calls: int = 0
    tokens: int = 0
    sessions: int = 0

    def report(self) -> Report:
        """What the checker says, with the jobs that are not finished as the live ones."""
        live = [(QUEUE, row.id, row.state) for row in self.rows.values()]
        end = replace(self.end, live=[*self.end.live, *live])
        return check(sorted(self.events, key=lambda event: event.t), end, self.terms)

    def wait(self, seconds: float) -> None:
        self.t += seconds

    def call(self) -> int:
        self.calls += 1
        return self.calls

    def note(self, kind: type[Event], who: str, call: int, *values: Any) -> Any:
        self.t += STEP
        event = kind(self.t, who, call, *values)
        self.events.append(event)
        return event

    def fault(self, what: str, victim: str, lasts: float = 0.0) -> None:
        self.note(history.Fault, "runner", 0, what, victim, self.t + STEP + lasts)
        self.t += lasts

    # Publishers and operators.

    def publish(
        self,
        *names: str,
        priority: int = 0,
        stored: bool = True,
        answered: bool = True,
        scheduled: bool = False,
        retry_limit: int = 2,
        key: str = "",
        group: str = "",
        tier: str = "",
    ) -> None:
        call, ids = self.call(), [job_id(name) for name in names]
        labels = [(key, group, tier)] * len(ids)
        self.note(history.Publish, "publisher-1", call, QUEUE, [(one, priority) for one in ids], labels)
        known = {*self.rows, *(outcome.id for outcome in self.end.outcomes)}
        if stored:
            for one in ids:
                if one not in known:
                    self.rows[one] = Row(one, self.call(), priority, self.t, scheduled, retry_limit)
        if answered:
            self.note(history.Published, "publisher-1", call, [(one, one not in known) for one in ids])
        else:
            self.note(history.Failed, "publisher-1", call, "UNAVAILABLE", "")

    def cancel(self, name: str, status: str) -> None:
        call, one = self.call(), job_id(name)
        self.note(history.Cancel, "operator-1", call, QUEUE, [one])
        if status == "CANCELLED":
            row = self.rows[one]
            row.attempt -= 1
            self.finish(one, "cancelled", "")
        self.note(history.CancelAnswered, "operator-1", call, [status])

    def pause(self, *, paused: bool = True, answered: bool = True, who: str = "operator-1") -> None:
        call = self.call()
        self.note(history.Pause, who, call, QUEUE, paused)
        if answered:
            self.note(history.PauseAnswered, who, call)
        else:
            self.note(history.Failed, who, call, "UNAVAILABLE", "")

    # The database.

    def claim(self, session: Session, *names: str) -> list[Handle]:
        self.t += STEP
        self.tokens += 1
        token, ids = UUID(int=self.tokens), [job_id(name) for name in names]
        self.end.claims.append(
            Claim(
                QUEUE,
                str(token),
                session.id,
                session.epoch,
                session.who,
                self.t,
                ids,
                [self.rows[one].attempt for one in ids],
                self.t,
            )
        )
        return [Handle(QUEUE, UUID(one), token, place) for place, one in enumerate(ids, 1)]

    def finish(self, one: str, state: str, token: str, errors: Sequence[tuple[int, str, str]] = ()) -> Outcome:
        self.t += STEP
        row = self.rows.pop(one)
        counts = (row.retry_count, row.loss_count, row.release_count, row.retry_limit)
        outcome = Outcome(
            QUEUE,
            row.id,
            row.seq,
            row.priority,
            row.attempt,
            *counts,
            state,
            token,
            row.created,
            self.t,
            row.scheduled,
            errors,
        )
        self.end.outcomes.append(outcome)
        return outcome

    def settle(self, handle: Handle, what: str) -> None:
        one, token = str(handle.job_id), str(handle.token)
        row = self.rows[one]
        if what == "complete":
            self.finish(one, "completed", token)
        elif what == "permanent" or (what == "fail" and row.retry_count == row.retry_limit):
            self.finish(one, "failed", token, [(row.attempt, "ValueError", "")])
        elif what == "fail":
            row.retry_count += 1
            row.attempt += 1
        elif what == "release":
            row.release_count += 1
            row.attempt += 1

    def give_back(self, *handles: Handle, lost: bool = False, expired: bool = False) -> None:
        """Ends leases without their worker."""
        self.t += STEP
        for handle in handles:
            row = self.rows[str(handle.job_id)]
            row.loss_count += lost
            if lost and row.loss_count == 5:
                self.finish(row.id, "failed", "", [(row.attempt, "LOST", "")])
            elif expired and row.retry_count == row.retry_limit:
                self.finish(row.id, "failed", "", [(row.attempt, "EXPIRED", "")])
            else:
                row.retry_count += expired
                row.attempt += 1

    def outcome(self, name: str) -> Outcome:
        return next(outcome for outcome in self.end.outcomes if outcome.id == job_id(name))

    def last(self, kind: type[Event]) -> Any:
        """The last event of a kind, to be spoiled."""
        return next(event for event in reversed(self.events) if isinstance(event, kind))


class Session:
    """A worker's session, and the calls that its process makes."""

    def __init__(self, story: Story, who: str = "worker-1", credits: int = 2) -> None:
        self.story = story
        self.who = who
        self.credits = credits
        story.sessions += 1
        self.id = str(UUID(int=10_000 + story.sessions))
        self.epoch = 0
        self.stream = 0
        self.sequence = 0
        self._subscribe(())

    def _subscribe(self, held: Iterable[Handle], lost: Iterable[Handle] = (), credits: int | None = None) -> None:
        self.credits = self.credits if credits is None else credits
        resumes = self.epoch > 0
        self.stream, self.sequence = self.story.call(), 1
        self.epoch += 1
        self._note(
            history.Subscribe,
            [QUEUE],
            self.credits,
            5.0,
            15.0,
            self.id if resumes else "",
            self.epoch if resumes else 0,
            [str(handle) for handle in held],
        )
        self._note(history.Opened, self.id, self.epoch, resumes, [str(handle) for handle in lost])

    def _note(self, kind: type[Event], *values: Any) -> Any:
        return self.story.note(kind, self.who, self.stream, *values)

    def claim(self, *names: str) -> list[Handle]:
        """Jobs are claimed for it, but do not arrive."""
        return self.story.claim(self, *names)

    def arrive(self, *handles: Handle) -> None:
        self.sequence += 1
        rows = [self.story.rows[str(handle.job_id)] for handle in handles]
        self._note(
            history.Delivered,
            self.sequence,
            [
                (str(handle), QUEUE, row.id, row.attempt, row.retry_count, row.priority)
                for handle, row in zip(handles, rows, strict=True)
            ],
        )

    def take(self, *names: str) -> list[Handle]:
        """Jobs are claimed for it, and arrive."""
        handles = self.claim(*names)
        self.arrive(*handles)
        for handle in handles:
            attempt = self.story.rows[str(handle.job_id)].attempt
            self.story.note(history.Started, self.who, 0, str(handle.job_id), attempt)
        return handles

    def ack(
        self,
        *handles: Handle,
        what: str = "complete",
        applied: bool = True,
        status: str | None = "APPLIED",
        credits: int | None = None,
        close: bool = False,
        alive: bool = True,
    ) -> None:
        """An Ack: whether it is applied, and how it is answered (None: not at all)."""
        call = self.story.call()
        items = [(str(handle), what) for handle in handles]
        self.story.note(history.Ack, self.who, call, self.id, self.sequence, credits, close, items)
        if applied:
            for handle in handles:
                self.story.settle(handle, what)
        if status is None:
            self.story.note(history.Failed, self.who, call, "UNAVAILABLE", "")
        else:
            self.story.note(history.Acked, self.who, call, [status] * len(items), alive)

    def work(self, *names: str) -> list[Handle]:
        """Takes jobs and completes them."""
        handles = self.take(*names)
        self.ack(*handles)
        return handles

    def beat(self) -> None:
        self.sequence += 1
        self._note(history.Heartbeat, self.sequence)
        self.ack()

    def beats(self, seconds: float) -> None:
        """Lives on for a while."""
        until = self.story.t + seconds
        while self.story.t < until:
            self.story.wait(5.0)
            self.beat()

    def stop(self, handle: Handle, reason: str) -> None:
        self.sequence += 1
        self._note(history.Cancelled, self.sequence, str(handle), reason)

    def broken(self) -> None:
        self._note(history.Ended, "UNAVAILABLE", "")

    def drained(self) -> None:
        self.sequence += 1
        self._note(history.Draining, self.sequence, 300.0)
        self._note(history.Ended, "OK", "")

    def resume(self, *held: Handle, lost: Iterable[Handle] = (), credits: int | None = None) -> None:
        self._subscribe(held, lost, credits)

    def close(self, *held: Handle) -> None:
        self.ack(close=True)
        self.story.give_back(*held)
        self._note(history.Ended, "OK", "")


def killed(story: Story) -> Handle:
    """A worker takes job `a`, is proven to have received it, dies, and its grace passes."""
    worker = Session(story)
    (lost,) = worker.take("a")
    worker.beat()
    story.fault("kill", "worker-1")
    story.wait(15.0)
    return lost


def holds(story: Story) -> None:
    """Nothing is wrong with it."""
    report = story.report()
    assert report.ok, str(report)


def breaks(story: Story, *invariants: str) -> None:
    """Exactly these invariants do not hold."""
    report = story.report()
    assert set(report.counts) == set(invariants), str(report)

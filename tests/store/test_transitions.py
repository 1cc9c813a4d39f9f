"""Every row of the table of transitions, walked through the real store; and what has no row changes nothing."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, AckStatus, Complete, Extend, Fail, JobState, NewJob, Outcome, Release
from jobwire_server.domain.limits import POISON_LOSSES
from jobwire_server.domain.operations import Change
from jobwire_server.domain.queues import JobOptionsPatch, Queue
from jobwire_server.domain.transitions import (
    OVER,
    RUNNING,
    TABLE,
    WAITING,
    Again,
    Counts,
    Event,
    Facts,
    Row,
    Standing,
    When,
    after,
    row_for,
)
from jobwire_server.store import archive, changing, claiming, gates, publishing, reading, sessions, settling, upkeep
from jobwire_server.store.actions import Entry
from tests.conftest import Postgres
from tests.model.stage import HOUR_MS, KEYS, QUEUES, Stage

QUEUE = QUEUES[0]
TERMS = sessions.SessionTerms("worker", (QUEUE.name,), 10, 60_000)
OPERATED = {
    Event.CANCEL: Change.CANCEL,
    Event.RUN: Change.RUN,
    Event.RETRY: Change.RETRY,
    Event.RESUME: Change.RESUME,
    Event.DELETE: Change.DELETE,
}


class Walker:
    """One job, and all that may befall it. If `gated` it has a key, of which one job at a time may run."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.gated = False
        self.job_id = uuid4()
        self.handle: Handle | None = None
        """Of its last delivery."""
        self.pause_ms = 0
        self.retry_limit = 1

    async def befall(self, event: Event, *, permanent: bool = False, later: bool = False) -> None:
        """Has the store do it. `later`: the job is to wait for an hour before it may run (again)."""
        database = self._stage.databases[0]
        if event in (Event.COMPLETE, Event.FAIL, Event.RELEASE, Event.EXTEND):
            await self._ack(event, permanent, HOUR_MS if later else 0)
        elif event in (Event.DUE, Event.LIMIT, Event.GRACE):
            await self._pass_time(event)
        elif event in (Event.LOST, Event.RETURNED):
            if self.handle is not None:
                await settling.give_back(database, [settling.Ending(self.handle, lost=event is Event.LOST)])
        elif event is Event.PUBLISH:
            await self._publish(NewJob(self.job_id, "0", start_in_ms=HOUR_MS if later else None))
        elif event is Event.ADMIT:
            await gates.admit(database, self.queue.name)
        elif event is Event.OVERTAKEN:
            await self._publish(NewJob(uuid4(), "0", priority=1))
            await gates.admit(database, self.queue.name)
        elif event is Event.CLAIM:
            await self._claim()
        elif event in OPERATED:
            batch = changing.Batch(self.queue.name, [self.job_id], HOUR_MS)
            await changing.change(database, batch, OPERATED[event], Entry("operator", "job.change"))
        else:
            assert event is Event.RESTORE
            await upkeep.recover(database)

    @property
    def queue(self) -> Queue:
        return KEYS if self.gated else QUEUE

    async def facts(self) -> Facts:
        """What the store says of the job."""
        job = await reading.get_job(self._stage.databases[0], [self.queue.name], self.job_id)
        if job is None:
            return Facts(retry_limit=self.retry_limit, gated=self.gated)
        counts = Counts(job.attempt, job.retry_count, job.loss_count, job.release_count, len(job.errors))
        if job.state.finished:
            standing = Standing[job.state.name]
        elif job.state is JobState.ACTIVE:
            [(reason,)] = await self._stage.execute(
                "SELECT stop_reason FROM {s}.live_job WHERE id = %(id)s", {"id": self.job_id}
            )
            standing = {None: Standing.ACTIVE, 1: Standing.STOPPING, 2: Standing.EXPIRED}[reason]
        else:
            tables = {Standing.READY: "ready", Standing.SCHEDULED: "scheduled", Standing.BLOCKED: "blocked"}
            counted = {standing: await self._tickets(table) for standing, table in tables.items()}
            counted[Standing.BLOCKED] += await self._tickets("gate_event", " AND kind = 1")
            [standing] = [standing for standing, count in counted.items() for _ in range(count)]
        facts = Facts(standing, counts, job.options.retry_limit, self.gated)
        # Who has come to a gate and was not seen yet is not called blocked.
        assert job.state is facts.state or standing is Standing.BLOCKED
        return facts

    async def _tickets(self, table: str, further: str = "") -> int:
        [(count,)] = await self._stage.execute(
            f"SELECT count(*) FROM {{s}}.{table} WHERE id = %(id)s{further}", {"id": self.job_id}
        )
        return int(count)

    async def bring(self, standing: Standing) -> None:
        """The job to a standing, from none."""
        if standing is Standing.NONE:
            return
        await self.befall(Event.PUBLISH, later=standing is Standing.SCHEDULED)
        if standing in RUNNING | OVER | {Standing.READY}:
            await self.befall(Event.ADMIT)
        if standing in RUNNING | OVER:
            await self.befall(Event.CLAIM)
        match standing:
            case Standing.EXPIRED:
                await self.befall(Event.LIMIT)
            case Standing.STOPPING:
                await self.befall(Event.CANCEL)
            case Standing.COMPLETED:
                await self.befall(Event.COMPLETE)
            case Standing.FAILED:
                await self.befall(Event.FAIL, permanent=True)
            case Standing.CANCELLED:
                await self.befall(Event.RETURNED)
                await self.befall(Event.CANCEL)
        assert (await self.facts()).standing is standing

    async def _publish(self, job: NewJob) -> None:
        options = JobOptionsPatch(retry_limit=self.retry_limit, retry_delay_ms=self.pause_ms)
        store = publishing.publish_keyed if self.gated else publishing.publish
        await store(self._stage.databases[0], self.queue, [job._replace(options=options)])

    async def _claim(self) -> None:
        database, replica, session = self._stage.databases[0], uuid4(), uuid4()
        await sessions.open_session(database, replica, session, TERMS)
        wants = [claiming.Want(session, 1, uuid4(), 1) for _ in range(2)]
        claimed = await claiming.claim(database, replica, self.queue.name, wants[:1])
        for each in claimed or await claiming.claim_suspect(database, replica, self.queue.name, wants[1]):
            assert each.delivery.handle.job_id == self.job_id
            self.handle = each.delivery.handle

    async def _ack(self, event: Event, permanent: bool, pause_ms: int) -> None:
        said: dict[Event, Outcome] = {
            Event.COMPLETE: Complete(None),
            Event.FAIL: Fail("E", "no", "", permanent, pause_ms),
            Event.RELEASE: Release(pause_ms),
            Event.EXTEND: Extend(HOUR_MS, None),
        }
        if self.handle is not None:
            await settling.settle(self._stage.databases[0], [AckItem(self.handle, said[event])])

    async def _pass_time(self, event: Event) -> None:
        if event is Event.DUE:
            for table in ("scheduled", "live_job"):
                await self._stage.execute(
                    f"UPDATE {{s}}.{table} SET start_after = now() - interval '1 second' WHERE start_after > now()"
                )
            await upkeep.promote_due(self._stage.databases[0])
            return
        if event is Event.LIMIT:
            await self._stage.execute("UPDATE {s}.claim SET claimed_at = claimed_at - interval '2 hours'")
        else:
            await self._stage.execute("UPDATE {s}.live_job SET stop_at = stop_at - interval '2 hours'")
        await self._stage.execute("UPDATE {s}.claim SET check_at = now()")
        while await upkeep.check_limits(self._stage.databases[0], HOUR_MS):
            pass


@pytest.fixture(scope="module")
async def stage(postgres: Postgres) -> AsyncIterator[Stage]:
    """One schema for all walks, which is emptied for each."""
    schema = f"test_{secrets.token_hex(5)}"
    try:
        async with Stage.ready(postgres.served, schema) as stage:
            yield stage
    finally:
        async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as direct:
            await direct.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())


@pytest.fixture
async def walker(stage: Stage) -> Walker:
    await stage.clear()
    return Walker(stage)


def _walks() -> list[Any]:
    """Each row from each of its standings, with and without a pause where what comes next may have one."""
    walks = []
    for row in TABLE:
        for before, gated in itertools.product(sorted(row.before, key=lambda each: each.value), (False, True)):
            if not gated and (before is Standing.BLOCKED or row.event is Event.OVERTAKEN):
                continue
            paused = row.event in (Event.PUBLISH, Event.FAIL, Event.RELEASE) or before is Standing.EXPIRED
            for later in (
                (False, True) if row.after is Again.WAITS and paused and row.event is not Event.RESTORE else (False,)
            ):
                name = f"{before.value} {row.event.value} {row.when.value}{' later' * later}{' gated' * gated}".replace(
                    " ", "-"
                )
                walks.append(pytest.param(row, before, later, gated, id=name))
    return walks


@pytest.mark.parametrize(("row", "before", "later", "gated"), _walks())
async def test_each_row_is_what_the_store_does(
    walker: Walker, row: Row, before: Standing, *, later: bool, gated: bool
) -> None:
    walker.gated = gated
    walker.retry_limit = 0 if row.when is When.NO_RETRY_LEFT else 1
    walker.pause_ms = HOUR_MS if later else 0
    await walker.bring(before)
    if row.when is When.POISON:
        for _ in range(POISON_LOSSES - 1):
            for event in (Event.LOST, Event.ADMIT, Event.CLAIM):
                await walker.befall(event)
    job, permanent = await walker.facts(), row.when is When.PERMANENT
    assert row_for(job, row.event, permanent=permanent) is row
    await walker.befall(row.event, permanent=permanent, later=later)
    assert await walker.facts() == after(job, row, later=later)


@pytest.mark.parametrize(
    ("before", "event"),
    [
        pytest.param(before, event, id=f"{before.value}-{event.value}".replace(" ", "-"))
        for before, event in itertools.product(Standing, Event)
        if not any(before in row.before and event is row.event for row in TABLE)
    ],
)
async def test_what_has_no_row_changes_nothing(walker: Walker, before: Standing, event: Event) -> None:
    walker.gated = before is Standing.BLOCKED
    if before in WAITING:
        # It was delivered before, so that there is a handle to name.
        for earlier in (Event.PUBLISH, Event.ADMIT, Event.CLAIM):
            await walker.befall(earlier)
        await walker.befall(Event.RELEASE, later=before is Standing.SCHEDULED)
    else:
        await walker.bring(before)
    job = await walker.facts()
    assert job.standing is before
    await walker.befall(event)
    assert await walker.facts() == job


def test_every_event_is_walked_or_not_built_yet() -> None:
    assert {row.event for row in TABLE} == set(Event)
    # From any standing at most one row applies, whatever the counts are.
    for standing, event, tried, permanent in itertools.product(Standing, Event, range(3), (False, True)):
        job = Facts(standing, Counts(retry_count=tried, loss_count=tried + POISON_LOSSES - 2), retry_limit=1)
        rows = [row for row in TABLE if standing in row.before and row.event is event]
        assert (row_for(job, event, permanent=permanent) is None) == (not rows)


@pytest.mark.parametrize("deleted", [False, True])
async def test_an_id_used_again_has_no_lease_of_its_former_life(stage: Stage, walker: Walker, *, deleted: bool) -> None:
    """A worker holds two deliveries of one claim; one job finishes, and its id is published a day later, or deleted."""
    database, queue, replica, session = stage.databases[0], QUEUE.name, uuid4(), uuid4()
    await sessions.open_session(database, replica, session, TERMS)
    await publishing.publish(database, QUEUE, [NewJob(job_id, "0") for job_id in (walker.job_id, uuid4())])
    claimed = await claiming.claim(database, replica, queue, [claiming.Want(session, 1, uuid4(), 2)])
    [old] = [each.delivery.handle for each in claimed if each.delivery.handle.job_id == walker.job_id]
    await settling.settle(database, [AckItem(old, Complete(None))])
    if deleted:
        batch = changing.Batch(queue, [walker.job_id], HOUR_MS)
        await changing.change(database, batch, Change.DELETE, Entry("operator", "job.delete"))
    else:
        await stage.execute("UPDATE {s}.archive SET finished_at = finished_at - interval '25 hours'")
        await archive.drop_past_days(database, datetime.now(UTC).date())
    await walker.befall(Event.PUBLISH)
    done = await settling.settle(database, [AckItem(old, Complete(None))])
    assert done.results[0].status is not AckStatus.APPLIED
    # The session's end does not touch the new job, which has a ticket already.
    assert await sessions.end_session(database, session) == sessions.Ended(replica, {queue: 1})

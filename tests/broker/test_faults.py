"""Faults between two lines: what an answer, a signal or a lock that did not come must not cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from uuid_utils.compat import uuid7

from jobwire_server.broker import dispatcher, session_book
from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import Ack, Deliveries, Opened
from jobwire_server.domain.errors import DatabaseUnavailable, LockTimeout
from jobwire_server.domain.jobs import AckItem, AckStatus, Complete, Fail, JobState, NewJob, Outcome, Release
from jobwire_server.domain.queues import Queue
from jobwire_server.store import claiming, publishing, queues, settling, upkeep
from jobwire_server.store import sessions as store
from jobwire_server.store.database import Connection, Database
from tests.conftest import Postgres

from .conftest import QUICK, Worker, jobs, publish, subscription, until

Replica = Callable[..., Awaitable[Broker]]
Rows = Callable[..., Awaitable[list[tuple[Any, ...]]]]


@pytest.fixture
async def sql(postgres: Postgres, schema: str) -> AsyncIterator[Rows]:
    """Runs a statement on a connection of its own, with our schema on its path."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute(f'SET search_path = "{schema}"'.encode())

        async def run(text: str, *params: Any) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(text.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []

        yield run


@asynccontextmanager
async def held(postgres: Postgres, schema: str, lock: str) -> AsyncIterator[None]:
    """Somebody's open transaction that has run `lock`."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        await connection.execute(f'SET search_path = "{schema}"'.encode())
        await connection.execute(lock.encode())
        yield
        await connection.rollback()


async def until_blocked(sql: Rows, count: int, *unless: asyncio.Task[Any]) -> None:
    """Returns when so many statements wait for a lock, or one of the tasks is done."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(20):
        while (await sql(waiting))[0][0] < count and not any(task.done() for task in unless):
            await asyncio.sleep(0.01)


async def over(broker: Broker, session_id: UUID) -> None:
    await until(lambda: broker._book.get(session_id) is None)


async def test_a_claim_that_commits_after_it_was_given_up_takes_nothing(database: Database) -> None:
    """Its result was lost, so what it took is given back; then it comes."""
    queue, replica, session, token = Queue("work"), uuid4(), uuid4(), uuid4()
    await queues.create_queue(database, queue)
    await publishing.publish(database, queue, [NewJob(uuid4(), "0")])
    await store.open_session(database, replica, session, store.SessionTerms("w", ("work",), 5, 60_000))
    assert await settling.give_back_claims(database, "work", {token: session}) == 0
    with pytest.raises(psycopg.errors.UniqueViolation):
        await claiming.claim(database, replica, "work", [claiming.Want(session, 1, token, 1)])
    assert (await queues.count_jobs(database, ["work"]))["work"].ready == 1
    later = uuid4()
    assert len(await claiming.claim(database, replica, "work", [claiming.Want(session, 1, later, 1)])) == 1
    assert await settling.give_back_claims(database, "work", {later: session}) == 1
    assert (await queues.count_jobs(database, ["work"]))["work"].ready == 1


async def test_a_give_back_that_failed_strands_no_job(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, sql: Rows
) -> None:
    """Two deliveries of one claim; one is never written, and its give-back fails; the other is acknowledged."""
    large = [NewJob(UUID(int=uuid7().int), json.dumps("x" * 700_000)) for _ in range(2)]
    await broker.publish(await broker.queues.for_publish("work"), large)
    give_back = settling.give_back

    async def fail(*_: object) -> dict[str, int]:
        raise DatabaseUnavailable

    monkeypatch.setattr(session_book.settling, "give_back", fail)
    async with broker.subscribe(subscription(credits=2, grace_ms=1_000)) as stream:
        opened = await stream.next_event()
        stream.written(1)
        first = await stream.next_event()
        stream.written(2)
        assert isinstance(opened, Opened) and isinstance(first, Deliveries) and len(first.deliveries) == 1
    await asyncio.sleep(0.1)
    monkeypatch.setattr(session_book.settling, "give_back", give_back)
    await broker.ack(Ack(opened.session_id, (AckItem(first.deliveries[0].handle, Complete(None)),), 2))
    await over(broker, opened.session_id)
    assert (await broker.get_job("work", large[1].id)).state is JobState.RETRY
    assert await sql("SELECT count(*) FROM claim") == [(0,)]


async def test_the_end_of_a_session_outlasts_a_lock(
    broker: Broker, postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = 0
    end_session = store.end_session

    async def counted(*args: Any, **named: Any) -> store.Ended | None:
        nonlocal refusals
        try:
            return await end_session(*args, **named)
        except LockTimeout:
            refusals += 1
            raise

    monkeypatch.setattr(session_book.store, "end_session", counted)
    [job_id] = await publish(broker)
    worker = Worker(broker, subscription(grace_ms=100))
    async with worker:
        await worker.receive(1)
        await worker.sign()
    async with held(postgres, schema, "SELECT FROM live_job FOR UPDATE"):
        await until(lambda: refusals)
    await over(broker, worker.opened.session_id)
    job = await broker.get_job("work", job_id)
    assert (job.state, job.loss_count) == (JobState.RETRY, 1)


@pytest.mark.parametrize("suspect", [False, True])
async def test_a_session_whose_client_leaves_is_claimed_for_no_more(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, sql: Rows, suspect: bool
) -> None:
    """A claim holds the session's row: over a backlog one would follow the other, and its end would wait for each."""
    end_session, leaving, go_on = store.end_session, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **named: Any) -> store.Ended | None:
        leaving.set()
        await go_on.wait()
        return await end_session(*args, **named)

    monkeypatch.setattr(session_book.store, "end_session", slow)
    async with Worker(broker, subscription()) as worker:
        closing = asyncio.create_task(broker.ack(Ack(worker.opened.session_id, (), close_session=True)))
        await leaving.wait()
        await publish(broker, start_in_ms=60_000 if suspect else None)
        await sql("UPDATE scheduled SET suspect = true, start_after = now()")
        await asyncio.sleep(3 * QUICK.poll_interval_ms / 1000)
        async with Worker(broker, subscription()) as other:
            await until(lambda: worker.deliveries or other.deliveries)
            assert not worker.deliveries
            go_on.set()
            await closing


async def test_a_session_whose_end_failed_goes_on(replica: Replica, postgres: Postgres, schema: str) -> None:
    broker = await replica(poll_interval_ms=60_000)
    async with Worker(broker, subscription()) as worker:
        async with held(postgres, schema, "SELECT FROM session FOR KEY SHARE"):
            closing = asyncio.create_task(broker.ack(Ack(worker.opened.session_id, (), close_session=True)))
            await asyncio.sleep(0.1)
            await publish(broker)
            with pytest.raises(LockTimeout):
                await closing
        await worker.receive(1)


async def test_a_loss_that_waits_for_a_database_that_is_away_is_counted_against_nobody(broker: Broker) -> None:
    """The grace is over just before the outage is noticed; the session's end waits for a connection all through it."""
    [job_id] = await publish(broker)
    async with AsyncExitStack() as stack:
        async with Worker(broker, subscription(grace_ms=200)) as worker:
            await worker.receive(1)
            await worker.sign()
            for _ in range(4):
                await stack.enter_async_context(broker._database.connection())
        await until(lambda: broker._stats["sessions_lost"])
        broker._lost()
    await over(broker, worker.opened.session_id)
    job = await broker.get_job("work", job_id)
    assert (job.attempt, job.loss_count) == (1, 0)


async def test_many_acks_of_a_long_queue_name_at_another_replica(replica: Replica) -> None:
    """More handles than one notification holds."""
    here, there = await replica(), await replica()
    name = "q" * 63
    await publish(here, 150, name)
    async with Worker(here, subscription(name, credits=150)) as worker:
        deliveries = await worker.receive(150)
        await worker.ack(*(d.handle for d in deliveries), at=there)
        await publish(here, 150, name)
        await worker.receive(300)
    assert not there._signals._pending


async def test_a_lost_signal_costs_no_credit(replica: Replica) -> None:
    here, there = await replica(), await replica()
    there._signals._send = lambda *_: None  # type: ignore[method-assign]
    await publish(here, 3)
    async with Worker(here, subscription(credits=1)) as worker:
        for n, outcome in enumerate[Outcome]((Complete(None), Fail("E", "m", "", permanent=True), Release(60_000))):
            delivery = (await worker.receive(n + 1))[n]
            assert (await worker.ack(delivery.handle, outcome=outcome, at=there))[0].status is AckStatus.APPLIED


async def test_a_lost_signal_costs_no_credit_though_the_job_has_run_again(replica: Replica) -> None:
    """The job remembers only its last settled delivery, which is another worker's."""
    here, there = await replica(), await replica()
    there._signals._send = lambda *_: None  # type: ignore[method-assign]
    await publish(here)
    async with Worker(here, subscription(credits=1)) as worker:
        [first] = await worker.receive(1)
        async with Worker(there, subscription()) as other:
            await worker.ack(first.handle, outcome=Release(0), at=there)
            [again] = await other.receive(1)
            await other.ack(again.handle)
        await publish(here)
        await worker.receive(2)


async def test_a_told_delivery_keeps_its_credit_when_its_lease_is_over(broker: Broker) -> None:
    """Its handler may still run: only the client's word returns the credit."""
    [first] = await publish(broker)
    async with Worker(broker, subscription(credits=1)) as worker:
        await worker.receive(1)
        await broker.cancel("work", [first])
        await until(lambda: worker.cancellations)
        async with asyncio.timeout(20):
            while (await broker.get_job("work", first)).state is not JobState.CANCELLED:
                await asyncio.sleep(0.05)
        await publish(broker)
        await asyncio.sleep(1.5)  # several looks for credits
        assert len(worker.deliveries) == 1
        await worker.ack(worker.deliveries[0].handle)
        await worker.receive(2)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_an_ack_that_arrives_during_a_resume_returns_its_credits(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """The resume has found the delivery held, and is not over yet when the Ack is."""
    here = await replica(renew_interval_ms=60_000)  # nobody looks for credits
    there = await replica(renew_interval_ms=60_000) if elsewhere else here
    await publish(here, 2)
    resume = store.resume_session
    found, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> Any:
        resumed = await resume(*args)
        found.set()
        await go_on.wait()
        return resumed

    monkeypatch.setattr(session_book.store, "resume_session", slow)
    async with Worker(here, subscription(credits=1)) as old:
        [first] = await old.receive(1)
        new = old.resume(first.handle, at=there)
        resuming = asyncio.create_task(new.__aenter__())
        await found.wait()
        assert (await old.ack(first.handle, at=there))[0].status is AckStatus.APPLIED
        go_on.set()
        await resuming
        await new.receive(1)
        await new.cut()


async def test_a_session_whose_opening_was_not_answered_is_ended_too(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, sql: Rows
) -> None:
    """The resume is committed, its answer lost, and the client dies: the row names an owner that does not know it."""
    [job_id] = await publish(broker)
    worker = Worker(broker, subscription(grace_ms=300))
    async with worker:
        [delivery] = await worker.receive(1)
    resume_session = store.resume_session

    async def unanswered(*args: Any, **named: Any) -> store.Resumed:
        await resume_session(*args, **named)
        raise DatabaseUnavailable

    monkeypatch.setattr(session_book.store, "resume_session", unanswered)
    with pytest.raises(DatabaseUnavailable):
        async with worker.resume(delivery.handle):
            pass
    async with asyncio.timeout(20):
        while await sql("SELECT id FROM session"):
            await asyncio.sleep(0.05)
    job = await broker.get_job("work", job_id)
    assert (job.state, job.loss_count) == (JobState.RETRY, 0)


async def test_a_cancellation_that_is_swallowed_does_not_hold_up_the_end(replica: Replica) -> None:
    """As a wait for a pooled connection does before Python 3.12, if the connection comes at the same moment."""
    broker = await replica()
    waiting = asyncio.Event()

    async def deaf() -> None:
        if not waiting.is_set():
            waiting.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    broker._book.clear_claims = deaf  # type: ignore[method-assign]
    await waiting.wait()
    async with asyncio.timeout(20):
        await broker.__aexit__()


async def test_what_came_in_below_the_floor_is_found_while_sessions_are_busy(
    broker: Broker, postgres: Postgres, schema: str
) -> None:
    """The first in line is held by a claim of another replica that does not commit."""
    ids = await publish(broker, 30)
    async with Worker(broker, subscription(credits=1)) as worker:
        async with held(postgres, schema, "SELECT FROM ready ORDER BY seq DESC LIMIT 29 FOR UPDATE"):
            await worker.receive(1)
        taken = 1
        async with held(postgres, schema, "SELECT FROM ready ORDER BY seq LIMIT 1 FOR UPDATE"):
            await worker.ack(worker.deliveries[0].handle)
            await worker.receive(2)
            taken = 2
        while ids[1] not in {d.handle.job_id for d in worker.deliveries}:
            assert taken < 20
            await asyncio.sleep(0.1)
            await worker.ack(worker.deliveries[-1].handle)
            taken += 1
            await worker.receive(taken)


async def test_recover_beside_a_release_makes_one_ticket(broker: Broker, sql: Rows) -> None:
    await publish(broker)
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        async with broker._database.transaction() as connection:
            items = [AckItem(delivery.handle, Release(3_600_000))]
            await settling._settle(broker._database, connection, items)
            recovering = asyncio.create_task(upkeep.recover(broker._database))
            await asyncio.sleep(0.3)
        await recovering
    assert await sql("SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM scheduled)") == [(1,)]


async def test_nothing_is_answered_before_it_is_stored(broker: Broker, postgres: Postgres, schema: str) -> None:
    """Somebody holds a lock for longer than a call waits for it."""
    queue = await broker.queues.for_publish("work")
    [job_id] = await publish(broker)
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        async with held(postgres, schema, "LOCK TABLE live_job IN EXCLUSIVE MODE"):
            answers = await asyncio.gather(
                broker.publish(queue, jobs(1)), worker.ack(delivery.handle), return_exceptions=True
            )
        assert [type(answer) for answer in answers] == [LockTimeout, LockTimeout]
        assert (await broker.queues.counts(["work"]))["work"].ready == 0
        assert (await broker.get_job("work", job_id)).state is JobState.ACTIVE
        assert (await worker.ack(delivery.handle))[0].status is AckStatus.APPLIED


async def test_an_ack_that_fails_half_way_changes_nothing(broker: Broker, sql: Rows) -> None:
    ids = await publish(broker, 2)
    await sql("ALTER TABLE archive ADD CHECK (state <> 6)")
    async with Worker(broker, subscription()) as worker:
        first, second = await worker.receive(2)
        fail = Fail("E", "m", "", permanent=True)
        items = (AckItem(first.handle, Complete(None)), AckItem(second.handle, fail))
        with pytest.raises(psycopg.errors.CheckViolation):
            await broker.ack(Ack(worker.opened.session_id, items, worker.sequence))
        assert [(await broker.get_job("work", job_id)).state for job_id in ids] == [JobState.ACTIVE] * 2


async def test_publishing_again_meets_a_job_that_is_just_finishing(broker: Broker, sql: Rows) -> None:
    """Its row is deleted, and that not committed, when the Publish comes to it."""
    queue = await broker.queues.for_publish("work")
    [job] = jobs(1)
    await broker.publish(queue, [job])
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        async with broker._database.transaction() as connection:
            await settling._settle(broker._database, connection, [AckItem(delivery.handle, Complete(None))])
            again = asyncio.create_task(broker.publish(queue, [job]))
            await until_blocked(sql, 1, again)
        assert [published.created for published in await again] == [False]
    assert await sql("SELECT count(*) FROM ready") == [(0,)]


async def test_the_same_ids_published_in_clashing_orders_do_not_deadlock(replica: Replica) -> None:
    here, there = await replica(), await replica()
    queue = await here.queues.for_publish("work")
    for _ in range(10):
        batch = jobs(500)
        results = await asyncio.gather(here.publish(queue, batch), there.publish(queue, batch[::-1]))
        assert sum(published.created for result in results for published in result) == 500


async def test_what_a_claim_took_whose_result_was_lost_is_delivered_all_the_same(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claiming.claim

    async def unanswered(*args: Any) -> list[claiming.Claimed]:
        if await claim(*args):
            monkeypatch.setattr(dispatcher.claiming, "claim", claim)
            raise DatabaseUnavailable
        return []

    monkeypatch.setattr(dispatcher.claiming, "claim", unanswered)
    ids = await publish(broker, 3)
    async with Worker(broker, subscription(credits=3)) as worker:
        deliveries = await worker.receive(3)
        assert [(d.handle.job_id, d.attempt) for d in deliveries] == [(job_id, 2) for job_id in ids]
    job = await broker.get_job("work", ids[0])
    assert (job.retry_count, job.loss_count) == (0, 0)


async def test_what_a_claim_took_for_a_session_that_left_meanwhile_is_delivered_all_the_same(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is gone when the result of its claim arrives, and its session may wait for a resume for long."""
    claim, claimed, go_on = claiming.claim, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> list[claiming.Claimed]:
        result = await claim(*args)
        if result:
            claimed.set()
            await go_on.wait()
        return result

    monkeypatch.setattr(dispatcher.claiming, "claim", slow)
    [job_id] = await publish(broker)
    async with Worker(broker, subscription(grace_ms=600_000)):
        await claimed.wait()
    go_on.set()
    async with Worker(broker, subscription()) as other:
        [delivery] = await other.receive(1)
        assert (delivery.handle.job_id, delivery.attempt) == (job_id, 2)
    assert (await broker.get_job("work", job_id)).loss_count == 0


async def test_a_resume_waits_for_a_claim_under_way_and_gives_back_what_it_took(
    database: Database, postgres: Postgres, schema: str, sql: Rows
) -> None:
    """The claim is held up where it writes its row: somebody else has just written one of the same token."""
    queue, replica, session, token = Queue("work"), uuid4(), uuid4(), uuid4()
    terms = store.SessionTerms("w", ("work",), 1, 60_000)
    await queues.create_queue(database, queue)
    await publishing.publish(database, queue, jobs(1))
    await store.open_session(database, replica, session, terms)
    rival = f"INSERT INTO claim VALUES ('work', '{token}', '{uuid4()}', 1, 'w', now(), now(), '{{}}', '{{}}')"
    async with held(postgres, schema, rival):
        want = claiming.Want(session, 1, token, 1)
        claim = asyncio.create_task(claiming.claim(database, replica, "work", [want]))
        await until_blocked(sql, 1)
        resume = asyncio.create_task(store.resume_session(database, replica, session, 0, [], terms))
        await until_blocked(sql, 2, resume)
    assert len(await claim) == 1
    assert (await resume).given_back == {"work": 1}
    assert (await queues.count_jobs(database, ["work"]))["work"].ready == 1


async def test_a_loss_that_falls_into_an_outage_is_nobodys_fault(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_session = store.end_session

    async def away(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(session_book.store, "end_session", end_session)
        raise DatabaseUnavailable

    monkeypatch.setattr(session_book.store, "end_session", away)
    [job_id] = await publish(broker)
    async with Worker(broker, subscription(grace_ms=0)) as worker:
        await worker.receive(1)
        await worker.sign()
    await over(broker, worker.opened.session_id)
    job = await broker.get_job("work", job_id)
    assert (job.state, job.loss_count) == (JobState.RETRY, 0)


async def test_an_outage_of_the_database_begins_all_graces_anew(replica: Replica, sql: Rows) -> None:
    """Of a session whose replica is gone, and of one whose stream is: most of both graces is over when it begins."""
    gone, here = await replica(owner_grace_ms=2_500), await replica()
    control: set[int] = set()
    beat = here._signals._beat

    async def noted(connection: Connection) -> None:
        control.add(connection.info.backend_pid)
        await beat(connection)

    here._signals._beat = noted
    async with Worker(gone, subscription()) as theirs:
        gone._signals.paused = True
        async with Worker(here, subscription(grace_ms=2_500)) as ours:
            pass
        await asyncio.sleep(1.5)
        await sql("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS c (pid)", list(control))
        await until(lambda: not here.ready)
        await until(lambda: here.ready)
        clock = asyncio.get_running_loop().time
        back = clock()
        ended: dict[UUID, float] = {}
        async with asyncio.timeout(20):
            while len(ended) < 2:
                alive = {row[0] for row in await sql("SELECT id FROM session")}
                for session in {theirs.opened.session_id, ours.opened.session_id} - alive:
                    ended.setdefault(session, clock() - back)
                await asyncio.sleep(0.01)
    assert min(ended.values()) > 2.0


@pytest.mark.parametrize("what", ["complete", "fail", "publish", "wait"])
async def test_plans_made_on_empty_tables_read_no_more_than_they_must(
    postgres: Postgres, schema: str, database: Database, sql: Rows, what: str
) -> None:
    """An idle queue after autovacuum, and then a burst: the cached plans know nothing of it."""
    queue, replica, session = Queue("work"), uuid4(), uuid4()
    await queues.create_queue(database, queue)
    await sql("VACUUM ANALYZE live_job, ready, scheduled, claim, session, archive")
    # One connection, so that the plans made now are those used later.
    async with Database(postgres.served, schema, pool_size=1) as one:
        await store.open_session(one, replica, session, store.SessionTerms("w", ("work",), 200, 60_000))

        async def take(count: int) -> list[claiming.Claimed]:
            return await claiming.claim(one, replica, "work", [claiming.Want(session, 1, uuid4(), count)])

        async def act(job: claiming.Claimed | None) -> None:
            handle = job.delivery.handle if job else None
            if what == "publish":
                await publishing.publish(one, queue, [NewJob(uuid4(), "0")])
            elif what == "wait":
                await one.once(
                    "revisions", {"queues": settling.arrays.texts(["work"]), "ids": settling.arrays.uuids([uuid4()])}
                )
            elif handle is not None:
                outcome = Complete(None) if what == "complete" else Fail("E", "m", "", permanent=True)
                await settling.settle(one, [AckItem(handle, outcome)])

        async def rows_read() -> int:
            await upkeep.next_due(one)
            async with one.connection() as connection:
                await connection.execute("SELECT pg_stat_force_next_flush()" if await newest() else "SELECT 1")
            await asyncio.sleep(1.2)
            [[count]] = await sql(
                "SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::int FROM pg_stat_user_tables"
                " WHERE schemaname = %s AND relname = 'live_job'",
                schema,
            )
            return int(count or 0)

        async def newest() -> bool:
            return (await sql("SELECT current_setting('server_version_num')::int >= 150000"))[0][0]

        await publishing.publish(one, queue, [NewJob(uuid4(), "0")])
        for job in await take(1):
            await act(job)
        for _ in range(3):
            await publishing.publish(one, queue, [NewJob(uuid4(), "0", client_id=False) for _ in range(1_000)])
        [job, *_] = await take(10)
        before = await rows_read()
        await act(job)
        assert await rows_read() - before < 100

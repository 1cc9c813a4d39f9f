"""docs/protocol.md, walked.

What each message does in each state of a session, and every crash point that one process can show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobwire_server.broker import session_book
from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import Ack, Deliveries, Opened, Resume
from jobwire_server.broker.upkeep import SessionWatch
from jobwire_server.domain.errors import Draining, LockTimeout, SessionLost, SessionTakenOver, TooManySessions
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, AckStatus, Complete, Fail, JobState
from jobwire_server.domain.queues import JobOptionsPatch
from jobwire_server.store import listing, settling, upkeep
from jobwire_server.store import sessions as store
from jobwire_server.store.database import Database
from tests.conftest import Postgres

from .conftest import Worker, publish, subscription, until

Replica = Callable[..., Awaitable[Broker]]


async def until_waiting(broker: Broker, *ids: UUID) -> None:
    async with asyncio.timeout(20):
        for job_id in ids:
            while (await broker.get_job("work", job_id)).state is not JobState.RETRY:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_resume_goes_on_with_what_is_held_and_sends_the_rest_again(replica: Replica, elsewhere: bool) -> None:
    here = await replica()
    there = await replica() if elsewhere else here
    await publish(here, 4)
    worker = Worker(here, subscription(credits=4))
    async with worker:
        first, second, third, fourth = await worker.receive(4)
        await worker.ack(fourth.handle)
    never_given = Handle("work", uuid4(), uuid4(), 1)
    async with worker.resume(first.handle, fourth.handle, never_given, at=there) as resumed:
        assert (
            resumed.opened.resumed
            and resumed.opened.epoch == 2
            and resumed.opened.session_id == worker.opened.session_id
        )
        assert set(resumed.opened.lost) == {fourth.handle, never_given}
        again = await resumed.receive(2)
        assert [d.handle.job_id for d in again] == [second.handle.job_id, third.handle.job_id]
        assert [(d.attempt, d.retry_count) for d in again] == [(2, 0), (2, 0)]
        assert [r.status for r in await resumed.ack(second.handle, third.handle)] == [AckStatus.LEASE_LOST] * 2
        assert [r.status for r in await resumed.ack(first.handle, *(d.handle for d in again))] == [
            AckStatus.APPLIED
        ] * 3
        # An Ack whose answer never came: repeated, it is known.
        assert (await resumed.ack(fourth.handle))[0].status is AckStatus.ALREADY_APPLIED
    for delivery in (first, second, third, fourth):
        job = await here.get_job("work", delivery.handle.job_id)
        assert (job.state, job.loss_count, job.retry_count) == (JobState.COMPLETED, 0, 0)


async def test_a_resume_lists_what_was_given_back_meanwhile_as_lost(broker: Broker) -> None:
    """Its claim still stands, for the sake of the other job in it."""
    await publish(broker, 2)
    worker = Worker(broker, subscription(credits=2))
    async with worker:
        first, second = await worker.receive(2)
        assert first.handle.token == second.handle.token
        await settling.give_back(broker._database, [settling.Ending(first.handle, lost=False)])
    async with worker.resume(first.handle, second.handle) as resumed:
        assert resumed.opened.lost == (first.handle,)
        [again] = await resumed.receive(1)
        assert (again.handle.job_id, again.attempt) == (first.handle.job_id, 2)


async def test_what_is_held_counts_against_the_credits_after_a_resume(broker: Broker) -> None:
    _, second = await publish(broker, 2)
    worker = Worker(broker, subscription(credits=1))
    async with worker:
        [held] = await worker.receive(1)
    async with worker.resume(held.handle) as resumed:
        await asyncio.sleep(0.5)
        assert resumed.deliveries == []
        await resumed.ack(held.handle)
        assert (await resumed.receive(1))[0].handle.job_id == second


async def test_resume_while_the_old_stream_still_looks_alive(replica: Replica) -> None:
    here, there = await replica(), await replica()
    await publish(here, 2)
    async with Worker(here, subscription(credits=2)) as old:
        first, second = await old.receive(2)
        async with old.resume(first.handle, second.handle, at=there) as new:
            await until(lambda: isinstance(old.ended, SessionTakenOver))
            assert here._book.get(old.opened.session_id) is None
            await publish(here, 1)
            assert [r.status for r in await new.ack(first.handle, second.handle)] == [AckStatus.APPLIED] * 2
            await new.receive(1)
        assert len(old.deliveries) == 2


async def test_the_higher_epoch_wins_whichever_arrives_first(replica: Replica) -> None:
    here, there = await replica(), await replica()
    async with Worker(here, subscription()) as old:
        pass
    async with old.resume(epoch=7, at=there) as winner:
        assert winner.opened.epoch == 7
        for late in (5, 7):
            with pytest.raises(SessionTakenOver):
                async with old.resume(epoch=late):
                    pass
        async with old.resume(epoch=8) as newest:
            await until(lambda: isinstance(winner.ended, SessionTakenOver))
            [job_id] = await publish(there)
            assert (await newest.receive(1))[0].handle.job_id == job_id


async def test_many_resumes_at_once_leave_one_stream(replica: Replica) -> None:
    here, there = await replica(), await replica()
    ids = await publish(here, 5)
    async with Worker(here, subscription(credits=5)) as old:
        held = [d.handle for d in await old.receive(5)]
    rivals = [old.resume(*held, epoch=2 + n, at=(here, there)[n % 2]) for n in range(8)]

    async def enter(rival: Worker) -> object:
        try:
            return await rival.__aenter__()
        except SessionTakenOver as error:
            return error

    await asyncio.gather(*(enter(rival) for rival in rivals))
    last = rivals[-1]
    await until(lambda: all(isinstance(r.ended, SessionTakenOver) for r in rivals[:-1] if hasattr(r, "opened")))
    assert last.opened.lost == () and last.ended is False
    assert [r.status for r in await last.ack(*held)] == [AckStatus.APPLIED] * 5
    assert [(await here.get_job("work", i)).state for i in ids] == [JobState.COMPLETED] * 5
    for rival in rivals:
        if hasattr(rival, "opened"):
            await rival.cut()


async def test_an_unknown_session_cannot_be_resumed(broker: Broker) -> None:
    with pytest.raises(SessionLost):
        async with Worker(broker, subscription(resume=Resume(uuid4(), 0, ()))):
            pass
    answer = await broker.ack(Ack(uuid4(), ()))
    assert not answer.session_alive


async def test_a_thin_client_is_given_time_and_then_its_jobs_go_back(broker: Broker) -> None:
    early, late = await publish(broker, 2)
    worker = Worker(broker, subscription(credits=2, grace_ms=600))
    async with worker:
        first, second = await worker.receive(2)
    # The stream is gone, the lease is not.
    assert (await worker.ack(first.handle))[0].status is AckStatus.APPLIED
    await until_waiting(broker, late)
    assert (await worker.ack(second.handle))[0].status is AckStatus.LEASE_LOST
    assert not (await worker.sign()).session_alive
    job = await broker.get_job("work", late)
    assert (job.loss_count, job.retry_count, job.attempt) == (1, 0, 1)
    assert [e.type for e in job.errors] == ["LOST"]
    assert (await broker.get_job("work", early)).state is JobState.COMPLETED


async def test_grace_zero_gives_back_at_once(broker: Broker) -> None:
    [job_id] = await publish(broker)
    async with Worker(broker, subscription(grace_ms=0)) as worker:
        await worker.receive(1)
    async with Worker(broker, subscription()) as other:
        assert (await other.receive(1))[0].handle.job_id == job_id


async def test_three_unanswered_heartbeats_lose_the_session_although_the_stream_is_open(broker: Broker) -> None:
    [job_id] = await publish(broker)
    async with Worker(broker, subscription(heartbeat_ms=150)) as worker:
        await worker.receive(1)
        await until(lambda: worker.heartbeats >= 8)
        worker.answer_heartbeats = False
        silent_from = worker.heartbeats
        await until(lambda: isinstance(worker.ended, SessionLost))
        assert worker.heartbeats - silent_from in (2, 3)
    await until_waiting(broker, job_id)


async def test_acks_of_outcomes_answer_heartbeats_too(broker: Broker) -> None:
    async with Worker(broker, subscription(heartbeat_ms=200, credits=1)) as worker:
        worker.answer_heartbeats = False
        for n in range(12):
            await publish(broker)
            delivery = (await worker.receive(n + 1))[n]
            await asyncio.sleep(0.1)
            assert (await worker.ack(delivery.handle))[0].status is AckStatus.APPLIED
        assert worker.ended is False


async def test_a_sign_of_life_may_go_to_another_replica(replica: Replica) -> None:
    here, there = await replica(), await replica()
    async with Worker(here, subscription(heartbeat_ms=400)) as worker:
        worker.answer_heartbeats = False
        for _ in range(15):
            answer = await there.ack(Ack(worker.opened.session_id, (), worker.sequence))
            assert answer.session_alive
            await asyncio.sleep(0.15)
        assert worker.ended is False


async def test_a_delivery_whose_receipt_is_not_proven_is_no_loss(broker: Broker) -> None:
    proven, unproven = await publish(broker, 2)
    worker = Worker(broker, subscription(credits=1, grace_ms=0))
    async with worker:
        await worker.receive(1)
        await worker.sign()
        await broker.ack(Ack(worker.opened.session_id, (), worker.sequence, max_in_flight=2))
        await worker.receive(2)
    await until_waiting(broker, proven, unproven)
    counts = [(await broker.get_job("work", job_id)).loss_count for job_id in (proven, unproven)]
    assert counts == [1, 0]


async def test_a_receipt_of_an_earlier_stream_proves_nothing_on_the_next(broker: Broker) -> None:
    """An Ack that was long under way names the last event of the stream before."""
    worker = Worker(broker, subscription(credits=20, grace_ms=500))
    async with worker:
        for n in range(10):
            await publish(broker)
            await worker.ack((await worker.receive(n + 1))[n].handle)
    async with worker.resume() as resumed:
        [job_id] = await publish(broker)
        await resumed.receive(1)
        assert worker.sequence > resumed.sequence
        assert (await worker.sign()).session_alive
    await until_waiting(broker, job_id)
    assert (await broker.get_job("work", job_id)).loss_count == 0


async def test_what_was_never_written_goes_back_at_once_uncounted(broker: Broker) -> None:
    [job_id] = await publish(broker)
    terms = subscription(grace_ms=600_000)
    async with broker.subscribe(terms) as stream:
        await stream.next_event()
        stream.written(1)
        await until(stream.unwritten)
    await until_waiting(broker, job_id)
    assert (await broker.get_job("work", job_id)).loss_count == 0


async def test_what_was_being_written_when_the_stream_broke_may_be_held(broker: Broker) -> None:
    """It may have arrived although nobody heard of that here: what comes later is given back, and this is not."""
    [job_id] = await publish(broker)
    async with broker.subscribe(subscription(grace_ms=600_000)) as stream:
        opened = await stream.next_event()
        assert isinstance(opened, Opened)
        stream.written(1)
        arrived = await stream.next_event()
        assert isinstance(arrived, Deliveries)
        [later] = await publish(broker)
        await until(stream.unwritten)
    await until_waiting(broker, later)
    [delivery] = arrived.deliveries
    resume = Resume(opened.session_id, 0, (delivery.handle,))
    async with Worker(broker, subscription(resume=resume)) as worker:
        assert worker.opened.lost == ()
        assert [one.handle.job_id for one in await worker.receive(1)] == [later]
        assert (await worker.ack(delivery.handle))[0].status is AckStatus.APPLIED
    assert (await broker.get_job("work", job_id)).attempt == 1


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_closing_gives_back_at_once_uncounted(replica: Replica, elsewhere: bool) -> None:
    # Rare renewals: one that finds the row gone before the signal arrives would end the stream as lost.
    here = await replica(renew_interval_ms=60_000)
    there = await replica() if elsewhere else here
    done, left = await publish(here, 2)
    async with Worker(here, subscription(credits=2)) as worker:
        first, _ = await worker.receive(2)
        items = (AckItem(first.handle, Complete(None)),)
        answer = await there.ack(Ack(worker.opened.session_id, items, worker.sequence, close_session=True))
        assert answer.results[0].status is AckStatus.APPLIED and answer.session_alive
        await until(lambda: worker.ended is True)
        assert not (await here.ack(Ack(worker.opened.session_id, (), close_session=True))).session_alive
    job = await here.get_job("work", left)
    assert (job.state, job.loss_count) == (JobState.RETRY, 0)
    assert (await here.get_job("work", done)).state is JobState.COMPLETED


async def test_a_poison_job_is_found_and_its_neighbours_are_not_blamed_for_it(broker: Broker) -> None:
    """One job kills whatever session runs it. After its second loss it runs alone; the neighbours finish."""
    ids = await publish(broker, 4)
    poison = ids[1]
    deaths = 0
    while deaths < 5:
        worker = Worker(broker, subscription(credits=4, grace_ms=0))
        async with worker:
            handled = 0
            while True:
                await worker.receive(handled + 1)
                await worker.sign()
                running = [d for d in worker.deliveries if d.handle.job_id == poison]
                if running:
                    if deaths >= 2:
                        assert running[0].suspect
                        in_flight = worker.broker._book._sessions[worker.opened.session_id].in_flight
                        assert list(in_flight) == [running[0].handle]
                    deaths += 1
                    break
                batch = worker.deliveries[handled:]
                handled += len(batch)
                await worker.ack(*(d.handle for d in batch))
        await until(lambda: len(broker._book) == 0)
    async with Worker(broker, subscription(credits=4)) as worker:
        done = 0
        while any([(await broker.get_job("work", i)).state is not JobState.COMPLETED for i in ids if i != poison]):
            if len(worker.deliveries) > done:
                await worker.ack(*(d.handle for d in worker.deliveries[done:]))
                done = len(worker.deliveries)
            await asyncio.sleep(0.02)
    dead = await broker.get_job("work", poison)
    assert (dead.state, dead.loss_count, dead.retry_count, len(dead.errors)) == (JobState.FAILED, 5, 0, 5)
    for job_id in ids:
        if job_id != poison:
            assert (await broker.get_job("work", job_id)).loss_count <= 2


@pytest.mark.parametrize("resumes", [False, True])
async def test_who_runs_a_suspect_gets_nothing_else_until_it_is_settled(broker: Broker, resumes: bool) -> None:
    [suspect] = await publish(broker)
    for _ in range(2):
        async with Worker(broker, subscription(grace_ms=0)) as doomed:
            await doomed.receive(1)
            await doomed.sign()
    worker = Worker(broker, subscription(credits=4))
    async with worker:
        [alone] = await worker.receive(1)
        assert alone.handle.job_id == suspect and alone.suspect
        if not resumes:
            await _gets_nothing_but(worker, alone.handle)
    if resumes:
        async with worker.resume(alone.handle) as resumed:
            await _gets_nothing_but(resumed, alone.handle)


async def _gets_nothing_but(worker: Worker, alone: Handle) -> None:
    before = len(worker.deliveries)
    ids = await publish(worker.broker, 3)
    await asyncio.sleep(0.6)  # signals and polls tell of them
    assert len(worker.deliveries) == before
    await worker.ack(alone)
    await worker.receive(before + 3)
    assert [d.handle.job_id for d in worker.deliveries[before:]] == ids


async def test_a_drain_sends_everybody_away_and_keeps_every_lease(replica: Replica) -> None:
    here, there = await replica(), await replica()
    ids = await publish(here, 3)
    waiting = asyncio.create_task(here.get_job("work", ids[0], 60_000, None, True))
    async with Worker(here, subscription(credits=2)) as worker:
        first, second = await worker.receive(2)
        await here.drain()
        assert worker.drained and worker.ended is True and not here.ready
        assert (await asyncio.wait_for(waiting, 20)).state is JobState.ACTIVE
        with pytest.raises(Draining):
            async with Worker(here, subscription()):
                pass
        # Publish, GetJob and Ack are still served.
        await publish(here, 1)
        assert (await worker.ack(first.handle))[0].status is AckStatus.APPLIED
        assert (await here.get_job("work", ids[1])).state is JobState.ACTIVE
        async with worker.resume(second.handle, at=there) as resumed:
            assert resumed.opened.lost == ()
            assert (await worker.ack(second.handle))[0].status is AckStatus.APPLIED
            await resumed.receive(2)
    for job_id in ids[:2]:
        job = await here.get_job("work", job_id)
        assert (job.state, job.attempt, job.loss_count) == (JobState.COMPLETED, 1, 0)


async def test_who_comes_while_a_drain_begins_is_parked_and_sent_away_too(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is written after all others have been parked."""
    here, there = await replica(owner_grace_ms=300), await replica()
    open_session, draining = store.open_session, asyncio.Event()

    async def late(*args: Any) -> None:
        draining.set()
        await until(lambda: parked)
        await open_session(*args)

    async def park(*args: Any) -> None:
        await park_sessions(*args)
        parked.append(True)

    park_sessions, parked = store.park, list[bool]()
    monkeypatch.setattr(session_book.store, "open_session", late)
    monkeypatch.setattr(session_book.store, "park", park)
    worker = Worker(here, subscription())
    coming = asyncio.create_task(worker.__aenter__())
    await draining.wait()
    await here.drain()
    await coming
    await until(lambda: worker.ended)
    assert worker.drained
    [sighting] = await _sightings(there)
    assert (sighting.id, sighting.grace_ms) == (worker.opened.session_id, 4_000)


async def _sightings(broker: Broker) -> list[store.Sighting]:
    async with broker._database.connection() as connection:
        return await store.sight(broker._database, connection, broker._terms.replica, [])


async def test_a_parked_session_outlives_the_owner_grace_but_not_the_drain_grace(replica: Replica) -> None:
    here, watcher = await replica(), await replica(owner_grace_ms=300)
    [job_id] = await publish(here)
    async with Worker(here, subscription()) as worker:
        await worker.receive(1)
        await here.drain()
    await asyncio.sleep(2.0)
    assert (await watcher.get_job("work", job_id)).state is JobState.ACTIVE
    await until_waiting(watcher, job_id)
    assert (await watcher.get_job("work", job_id)).loss_count == 0


async def test_the_sessions_of_a_dead_replica_are_ended_by_another_uncounted(replica: Replica) -> None:
    here, there = await replica(), await replica()
    [job_id] = await publish(here)
    async with Worker(here, subscription()) as worker:
        await worker.receive(1)
        await worker.sign()
        here._signals.paused = True  # it renews no more, as if it were dead
        async with Worker(there, subscription()) as other:
            assert (await other.receive(1))[0].handle.job_id == job_id
            assert (await worker.ack(worker.deliveries[0].handle, at=there))[0].status is AckStatus.LEASE_LOST
            assert (await other.ack(other.deliveries[0].handle))[0].status is AckStatus.APPLIED
    job = await there.get_job("work", job_id)
    assert (job.loss_count, job.retry_count) == (0, 0)


async def test_the_watch_begins_anew_after_a_pause_or_an_outage(database: Database) -> None:
    """Neither a database that was away nor a stalled process expires anybody."""
    owner, session = uuid4(), uuid4()
    await store.open_session(database, owner, session, store.SessionTerms("w", ("work",), 1, 10_000))
    now = 0.0
    ended: list[UUID] = []
    watch = SessionWatch(database, uuid4(), 5.0, lambda session_id, _: ended.append(session_id), clock=lambda: now)

    ending = asyncio.create_task(watch.run())

    async def look(at: float) -> None:
        nonlocal now
        now = at
        async with database.connection() as connection:
            await watch.look(connection, [])
        await asyncio.sleep(0.1)  # what it found would be ended by now

    for at in (0, 5, 9.9):
        await look(at)
    assert not ended
    await look(60)  # this process stood still: what it saw before proves nothing
    await look(65)
    watch.begin_anew()  # the database was away
    await look(69)
    await look(74)
    async with database.connection() as connection:
        await store.renew(database, connection, owner, {session: store.Renewal(1, 1)})
    await look(79)
    await look(84)
    assert not ended
    await look(89.5)
    await until(lambda: ended == [session])
    ending.cancel()


async def test_a_renewal_that_was_on_its_way_to_a_drain_leaves_the_session_away(database: Database) -> None:
    """It was said while the session still had its stream; only a resume says that it has one again."""
    owner, session, terms = uuid4(), uuid4(), store.SessionTerms("w", ("work",), 1, 60_000)

    async def away() -> bool:
        [listed] = await listing.list_sessions(database, None, None, 1, 0)
        return listed.detached_at is not None

    await store.open_session(database, owner, session, terms)
    await store.park(database, owner, 300_000)
    async with database.connection() as connection:
        assert await store.renew(database, connection, owner, {session: store.Renewal(1, 1)}) == {session: False}
    assert await away()
    await store.resume_session(database, owner, session, 0, [], terms)
    assert not await away()


async def test_a_session_that_moved_on_since_it_was_seen_is_not_ended(database: Database) -> None:
    owner, session, terms = uuid4(), uuid4(), store.SessionTerms("w", ("work",), 1, 60_000)
    await store.open_session(database, owner, session, terms)
    async with database.connection() as connection:
        assert await store.renew(database, connection, owner, {session: store.Renewal(1, 1)}) == {session: False}
    assert await store.end_session(database, session, epoch=1, renewals=0) is None
    assert (await store.resume_session(database, owner, session, 0, [], terms)).epoch == 2
    assert await store.end_session(database, session, epoch=1) is None
    assert await store.find_owner(database, session) == owner
    assert await store.end_session(database, session, epoch=2, renewals=2) is not None


async def test_a_renewal_learns_of_a_takeover_that_no_signal_told(replica: Replica) -> None:
    here = await replica()
    async with Worker(here, subscription()) as worker:
        terms = store.SessionTerms("w", ("work",), 1, 60_000)
        await store.resume_session(here._database, uuid4(), worker.opened.session_id, 0, [], terms)
        await until(lambda: isinstance(worker.ended, SessionTakenOver))
    async with Worker(here, subscription()) as worker:
        await store.end_session(here._database, worker.opened.session_id)
        await until(lambda: isinstance(worker.ended, SessionLost))


async def test_an_old_owner_that_wakes_up_claims_nothing(replica: Replica) -> None:
    """Its epoch is outdated; its row does not say so in its memory yet."""
    here = await replica(renew_interval_ms=60_000)
    async with Worker(here, subscription()) as old:
        terms = store.SessionTerms("w", ("work",), 1, 60_000)
        await store.resume_session(here._database, uuid4(), old.opened.session_id, 0, [], terms)
        [job_id] = await publish(here)
        await asyncio.sleep(0.5)
        assert old.deliveries == []
        assert (await here.get_job("work", job_id)).state is JobState.CREATED


async def test_an_end_and_an_ack_at_once_leave_one_outcome(broker: Broker) -> None:
    for _ in range(30):
        ids = await publish(broker, 5, options=JobOptionsPatch(retry_delay_ms=0))
        async with Worker(broker, subscription(credits=5)) as worker:
            handles = [d.handle for d in await worker.receive(5)]
            results, _ = await asyncio.gather(
                worker.ack(*handles),
                store.end_session(broker._database, worker.opened.session_id, received=partial(frozenset, handles)),
            )
            for job_id, result in zip([h.job_id for h in handles], results, strict=True):
                job = await broker.get_job("work", job_id)
                if result.status is AckStatus.APPLIED:
                    assert job.state is JobState.COMPLETED
                else:
                    assert (result.status, job.state, job.loss_count) == (AckStatus.LEASE_LOST, JobState.RETRY, 1)
        await broker.cancel("work", ids)


async def test_claims_and_resumes_at_once_lose_no_job(broker: Broker) -> None:
    """A claim under way while its session is resumed: whatever it took is delivered or given back."""
    ids = set(await publish(broker, 200))
    worker = Worker(broker, subscription(credits=5))
    done: set[UUID] = set()
    async with asyncio.timeout(60):
        for turn in range(400):
            async with worker:
                await asyncio.sleep(0.004 * (turn % 4))
                batch = [d.handle for d in worker.deliveries]
                for handle, result in zip(batch, await worker.ack(*batch), strict=True):
                    if result.status is AckStatus.APPLIED:
                        assert handle.job_id not in done
                        done.add(handle.job_id)
            if done == ids:
                break
            worker = worker.resume()
    assert done == ids


async def test_recover_gives_back_everything_active_and_voids_sessions(broker: Broker) -> None:
    active = await publish(broker, 2)
    [waiting] = await publish(broker, start_in_ms=60_000)
    async with Worker(broker, subscription(credits=2)) as worker:
        deliveries = await worker.receive(2)
        recovered = await upkeep.recover(broker._database)
        assert (recovered.sessions, recovered.jobs) == (1, {"work": 2})
        assert (await worker.ack(deliveries[0].handle))[0].status is AckStatus.LEASE_LOST
        await until(lambda: isinstance(worker.ended, SessionLost))
    assert [(await broker.get_job("work", i)).state for i in active] == [JobState.RETRY] * 2
    assert (await upkeep.recover(broker._database)).jobs == {}
    assert (await broker.get_job("work", waiting)).state is JobState.CREATED


async def test_claims_are_cleared_away_when_all_is_settled(broker: Broker) -> None:
    await publish(broker, 20)
    async with Worker(broker, subscription(credits=20)) as worker:
        await worker.ack(*(d.handle for d in await worker.receive(20)))

        async def left() -> int:
            async with broker._database.connection() as connection:
                row = await (
                    await connection.execute(f'SELECT count(*) AS n FROM "{broker._database.schema}".claim'.encode())
                ).fetchone()
                return int(row.n) if row else 0

        async with asyncio.timeout(10):
            while await left():
                await asyncio.sleep(0.05)


async def test_an_ack_that_the_old_owner_took_after_the_takeover_returns_its_credit(replica: Replica) -> None:
    """The old stream looks alive at its owner, which does not hear of the takeover."""
    here, there = await replica(renew_interval_ms=60_000), await replica()
    here._book.taken_over = lambda *_: None  # type: ignore[method-assign]
    await publish(here, 2)
    async with Worker(here, subscription(credits=1)) as old:
        [first] = await old.receive(1)
        async with old.resume(first.handle, at=there) as new:
            assert (await old.ack(first.handle))[0].status is AckStatus.APPLIED
            await new.receive(1)


async def test_only_so_many_sessions(replica: Replica) -> None:
    broker = await replica(max_sessions=1)
    async with Worker(broker, subscription()):
        with pytest.raises(TooManySessions):
            async with Worker(broker, subscription()):
                pass


async def test_no_deadlock_between_all_that_ends_leases(replica: Replica, postgres: Postgres) -> None:
    """Acks, failures, cancels, expiries and give-backs on the same jobs, from two replicas, in clashing orders."""
    mark = postgres.log_size()
    here, there = await replica(), await replica()
    for _ in range(6):
        ids = await publish(here, 200, options=JobOptionsPatch(expire_ms=1_000, retry_delay_ms=0))
        async with Worker(here, subscription(credits=200, grace_ms=0)) as worker:
            handles = [d.handle for d in await worker.receive(200)]
            results = await asyncio.gather(
                worker.ack(*handles[:150]),
                worker.ack(*reversed(handles[50:]), outcome=Fail("E", "m", ""), at=there),
                here.cancel("work", list(reversed(ids))),
                there.cancel("work", ids[30:170]),
                settling.give_back(there._database, [settling.Ending(h, lost=True) for h in reversed(handles)]),
                upkeep.check_limits(there._database, 0),
                return_exceptions=True,
            )
            # On a slow machine one may wait for another for longer than a second; it would be repeated.
            failures = [result for result in results if isinstance(result, BaseException)]
            assert all(isinstance(failure, LockTimeout) for failure in failures), failures
        await here.cancel("work", ids)
    assert [line for line in postgres.errors(mark) if "deadlock" in line] == []

"""Jobs that failed for good: on their way to another queue, in it, and back to work."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from jobwire_server.broker.broker import Broker
from jobwire_server.domain.dead_letters import (
    RedriveFilter,
    Redriven,
    RedriveOrder,
    RedrivePlace,
    Refusal,
    Unblock,
    UnblockStatus,
)
from jobwire_server.domain.errors import InvalidArgument, QueueNotFound
from jobwire_server.domain.jobs import Fail, Job, JobState, Labels
from jobwire_server.domain.operations import JobFilter
from jobwire_server.domain.queues import JobOptions, JobOptionsPatch, Policy, Queue, QueuePatch
from jobwire_server.store import letters, redriving
from jobwire_server.store.database import Connection, Database, Row
from tests.conftest import Postgres, opened

from .conftest import Worker, publish, subscription

Replica = Callable[..., Awaitable[Broker]]
GONE = Fail("ValueError", "no such file", "a trace", permanent=True)
NO_RETRY = JobOptions(retry_limit=0)


async def queues(broker: Broker, *, dead: Queue | None = None, **work: Any) -> None:
    """A queue `work` whose dead letters go to `dead`."""
    await broker.queues.create(dead or Queue("dead"))
    await broker.queues.create(Queue("work", replace(NO_RETRY, dead_letter="dead"), **work))


async def fail_all(broker: Broker, count: int, queue: str = "work", outcome: Fail = GONE) -> None:
    async with Worker(broker, subscription(queue, credits=count)) as worker:
        handles = [delivery.handle for delivery in await worker.receive(count)]
        await worker.ack(*handles, outcome=outcome)


async def jobs_in(broker: Broker, queue: str, *states: JobState) -> list[Job]:
    return (await broker.operations.list_jobs(queue, JobFilter(states=frozenset(states)), None, 500)).jobs


async def arrived(broker: Broker, count: int, queue: str = "dead") -> list[Job]:
    """Waits until so many jobs are in the queue; returns them, the oldest first."""
    async with asyncio.timeout(30):
        while len(found := await jobs_in(broker, queue)) < count:
            await asyncio.sleep(0.02)
    assert len(found) == count
    return found[::-1]


async def redrive_all(broker: Broker, order: RedriveOrder) -> list[Redriven]:
    place: RedrivePlace | None = RedrivePlace()
    results: list[Redriven] = []
    while place is not None:
        step = await broker.dead_letters.redrive(order, place)
        results += step.results
        place = step.next
    return results


async def test_a_dead_letter_tells_where_it_comes_from(broker: Broker) -> None:
    await queues(broker)
    labels = Labels(key="order-1", group="acme", tier="gold")
    [job_id] = await publish(broker, labels=labels, headers='{"a":"b"}', priority=7)
    await fail_all(broker, 1)
    [letter] = await arrived(broker, 1)
    failed = await broker.get_job("work", job_id)
    assert (letter.data, letter.headers, letter.priority, letter.labels) == (failed.data, '{"a":"b"}', 7, labels)
    assert letter.options == JobOptions() and letter.state is JobState.CREATED and letter.attempt == 0
    origin = letter.origin
    assert origin is not None and origin.error is not None
    assert (origin.queue, origin.id, origin.attempts, origin.redrives) == ("work", job_id, 1, 0)
    assert (origin.created_at, origin.failed_at) == (failed.created_at, failed.finished_at)
    assert origin.error == failed.errors[0]
    assert (origin.error.type, origin.error.worker, origin.error.started_at) == (
        "ValueError",
        "test-worker",
        failed.started_at,
    )
    assert failed.state is JobState.FAILED and failed.options.dead_letter == "dead"
    # It keeps its origin through its own retries, in deliveries, and into the archive.
    async with Worker(broker, subscription("dead")) as worker:
        await worker.ack((await worker.receive(1))[0].handle, outcome=Fail("E", "again", "", retry_ms=0))
        second = (await worker.receive(2))[1]
        assert second.origin == origin
        await worker.ack(second.handle)
    done = await broker.get_job("dead", letter.id)
    assert done.state is JobState.COMPLETED and done.origin == origin


@pytest.mark.parametrize("how", ["out of retries", "expired", "lost"])
async def test_every_way_to_fail_leaves_a_letter_and_its_history(broker: Broker, how: str) -> None:
    await queues(broker)
    retries = 2 if how == "out of retries" else 0
    options = JobOptionsPatch(retry_limit=retries, retry_delay_ms=0, expire_ms=1_000 if how == "expired" else None)
    [job_id] = await publish(broker, options=options)
    if how == "out of retries":
        async with Worker(broker, subscription()) as worker:
            for run in range(1, 4):
                await worker.ack((await worker.receive(run))[-1].handle, outcome=Fail("E", f"run {run}", ""))
    elif how == "expired":
        async with Worker(broker, subscription()) as worker:
            await worker.receive(1)
            await arrived(broker, 1)
    else:
        for _ in range(5):
            async with Worker(broker, subscription(grace_ms=0)) as worker:
                await worker.receive(1)
                await worker.sign()
    [letter] = await arrived(broker, 1)
    errors = (await broker.get_job("work", job_id)).errors
    expected = {"out of retries": ["E"] * 3, "expired": ["EXPIRED"], "lost": ["LOST"] * 5}[how]
    assert [error.type for error in errors] == expected
    assert [error.attempt for error in errors] == list(range(1, len(expected) + 1))
    assert all(error.started_at is not None and error.started_at <= error.time for error in errors)
    assert letter.origin is not None and letter.origin.error == errors[-1]
    assert letter.origin.attempts == len(expected)


async def test_the_history_is_bounded(broker: Broker) -> None:
    await publish(broker, options=JobOptionsPatch(retry_limit=20, retry_delay_ms=0))
    async with Worker(broker, subscription()) as worker:
        for run in range(1, 14):
            await worker.ack((await worker.receive(run))[-1].handle, outcome=Fail("E", f"run {run}", ""))
        [job] = await jobs_in(broker, "work")
        assert [error.attempt for error in job.errors] == list(range(4, 14))


async def test_a_job_may_choose_its_dead_letter_queue_or_none(broker: Broker) -> None:
    await queues(broker)
    await broker.queues.create(Queue("other"))
    [chosen] = await publish(broker, options=JobOptionsPatch(dead_letter="other"))
    await publish(broker, options=JobOptionsPatch(dead_letter=""))
    await fail_all(broker, 2)
    [letter] = await arrived(broker, 1, "other")
    assert letter.origin is not None and letter.origin.id == chosen
    assert await jobs_in(broker, "dead") == []


async def test_what_cannot_be_a_dead_letter_queue_is_refused(broker: Broker) -> None:
    await queues(broker)
    with pytest.raises(InvalidArgument, match="another queue than 'work'"):
        await broker.change_queue("work", QueuePatch(JobOptionsPatch(dead_letter="work")))
    with pytest.raises(InvalidArgument, match="leads back to 'dead', by way of work"):
        await broker.change_queue("dead", QueuePatch(JobOptionsPatch(dead_letter="work")))
    with pytest.raises(QueueNotFound):
        await broker.queues.create(Queue("new", JobOptions(dead_letter="nowhere")))
    with pytest.raises(QueueNotFound):
        await publish(broker, options=JobOptionsPatch(dead_letter="nowhere"))
    with pytest.raises(InvalidArgument, match=r"jobs\[0\]\.options\.dead_letter"):
        await publish(broker, options=JobOptionsPatch(dead_letter="work"))
    none = await broker.change_queue("work", QueuePatch(JobOptionsPatch(dead_letter="")))
    assert none.options.dead_letter is None


async def test_a_chain_remembers_its_first_origin_and_a_circle_ends(broker: Broker) -> None:
    await queues(broker)
    await broker.queues.create(Queue("last"))
    await broker.change_queue("dead", QueuePatch(JobOptionsPatch(dead_letter="last")))
    [job_id] = await publish(broker)
    await fail_all(broker, 1)
    await fail_all(broker, 1, "dead")
    [letter] = await arrived(broker, 1, "last")
    assert letter.origin is not None
    assert (letter.origin.queue, letter.origin.first_queue, letter.origin.first_id) == ("dead", "work", job_id)
    # A job's own word can make a circle: it ends where the job has been.
    [back] = await publish(broker, queue="last", options=JobOptionsPatch(dead_letter="work"))
    async with Worker(broker, subscription("last", credits=2)) as worker:
        handles = [d.handle for d in await worker.receive(2) if d.handle.job_id == back]
        await worker.ack(*handles, outcome=GONE)
        await fail_all(broker, 1, "work")
        await fail_all(broker, 1, "dead")
    async with asyncio.timeout(30):
        while not any(job.origin and job.origin.first_id == back for job in await jobs_in(broker, "dead")):
            await asyncio.sleep(0.02)
    assert {job.id for job in await jobs_in(broker, "last")} == {letter.id, back}


async def test_policy_and_key_hold_in_the_dead_letter_queue_and_nothing_is_lost(broker: Broker) -> None:
    await queues(broker, dead=Queue("dead", policy=Policy.EXCLUSIVE))
    ids = await publish(broker, 3, labels=Labels(key="k"))
    await fail_all(broker, 3)
    seen = set()
    for left in (2, 1, 0):
        async with asyncio.timeout(30):
            while len(waiting := await broker.dead_letters.undelivered("dead", None, 10)) != left:
                await asyncio.sleep(0.05)
        [letter] = await jobs_in(broker, "dead", JobState.CREATED)
        assert all(w.refusal is Refusal.POLICY and w.met == letter.id and w.key == "k" for w in waiting)
        assert letter.origin is not None
        seen.add(letter.origin.id)
        await broker.cancel("dead", [letter.id])
        broker.dead_letters.poke()
    assert seen == set(ids)


async def test_gates_hold_in_the_dead_letter_queue(broker: Broker) -> None:
    await queues(broker, dead=Queue("dead", policy=Policy.KEY_STRICT_FIFO))
    await publish(broker, 2, labels=Labels(key="k"))
    await publish(broker)
    await fail_all(broker, 3)
    async with Worker(broker, subscription("dead", credits=5)) as worker:
        first = (await worker.receive(1))[0]
        assert len(await arrived(broker, 2)) == 2 and len(worker.deliveries) == 1
        await worker.ack(first.handle)
        await worker.receive(2)
    [waiting] = await broker.dead_letters.undelivered(None, None, 10)
    assert waiting.refusal is Refusal.NO_KEY and waiting.target == "dead"


async def test_a_dead_letter_queue_that_is_gone_gets_its_letters_when_it_is_there_again(
    broker: Broker, postgres: Postgres, schema: str
) -> None:
    await queues(broker)
    await publish(broker, 2)
    async with opened(postgres.dsn, schema) as database, database.connection() as connection:
        await connection.execute(f"DELETE FROM \"{schema}\".queue WHERE name = 'dead'".encode())
    await fail_all(broker, 2)
    async with asyncio.timeout(30):
        while len(waiting := await broker.dead_letters.undelivered(None, None, 10)) < 2:
            await asyncio.sleep(0.05)
    assert {w.refusal for w in waiting} == {Refusal.NO_QUEUE}
    await broker.queues.create(Queue("dead"))
    await arrived(broker, 2)


async def test_letters_of_many_jobs_are_carried_once_by_replicas_beside_each_other(
    replica: Replica, postgres: Postgres, schema: str
) -> None:
    first, second = await replica(), await replica()
    await queues(first)
    ids = await publish(first, 600)
    async with Worker(first, subscription(credits=600)) as worker:
        handles = [delivery.handle for delivery in await worker.receive(600)]
        half = len(handles) // 2
        await asyncio.gather(
            worker.ack(*handles[:half], outcome=GONE), worker.ack(*handles[half:], outcome=GONE, at=second)
        )
    async with opened(postgres.dsn, schema) as database:
        await asyncio.gather(*(letters.carry(database) for _ in range(4)))
        async with database.connection() as connection:
            async with asyncio.timeout(30):
                while (await row(connection, f'SELECT count(*) AS n FROM "{schema}".dead_letter')).n:
                    await asyncio.sleep(0.05)
            rows = await connection.execute(f"SELECT origin ->> 'id' AS id FROM \"{schema}\".live_job".encode())
            assert sorted(found.id for found in await rows.fetchall()) == sorted(map(str, ids))


async def row(connection: Connection, text: str) -> Any:
    return await (await connection.execute(text.encode())).fetchone()


async def test_a_redrive_sends_each_back_to_where_it_comes_from(broker: Broker) -> None:
    await queues(broker)
    await broker.queues.create(Queue("mail", replace(NO_RETRY, dead_letter="dead")))
    [job] = await publish(broker, labels=Labels(key="k"), headers='{"a":"b"}', priority=3)
    [letter] = await publish(broker, queue="mail", options=JobOptionsPatch(dead_letter="dead"))
    await fail_all(broker, 1)
    await fail_all(broker, 1, "mail")
    await arrived(broker, 2)
    rehearsed = await redrive_all(broker, RedriveOrder("dead", dry_run=True))
    assert {result.queue for result in rehearsed} == {"work", "mail"} and len(await jobs_in(broker, "dead")) == 2
    results = {result.queue: result for result in await redrive_all(broker, RedriveOrder("dead"))}
    assert results.keys() == {"work", "mail"} and await jobs_in(broker, "dead") == []
    new = results["work"].new_id
    assert new is not None
    again = await broker.get_job("work", new)
    assert (again.labels.key, again.headers, again.priority) == ("k", '{"a":"b"}', 3)
    assert again.origin is not None and (again.origin.id, again.origin.redrives) == (job, 1)
    # What fails again becomes a dead letter again, and knows where it all began.
    await fail_all(broker, 1)
    [back] = await arrived(broker, 1)
    assert back.origin is not None
    assert (back.origin.id, back.origin.first_id, back.origin.redrives) == (new, job, 1)
    assert letter != job


async def test_a_redrive_takes_what_matches_as_many_as_wanted(broker: Broker) -> None:
    await queues(broker)
    await broker.queues.create(Queue("mail", replace(NO_RETRY, dead_letter="dead")))
    await publish(broker, 3)
    await publish(broker, 2, queue="mail")
    await fail_all(broker, 3, outcome=replace(GONE, type="KeyError"))
    await fail_all(broker, 2, "mail")
    found = await arrived(broker, 5)
    times = [job.origin.failed_at for job in found if job.origin]

    async def matched(**chosen: Any) -> int:
        order = RedriveOrder("dead", filter=RedriveFilter(**chosen), dry_run=True)
        return len(await redrive_all(broker, order))

    assert await matched(origin_queue="mail") == 2
    assert await matched(error_type="KeyError") == 3
    assert await matched(error_type="KeyError", origin_queue="mail") == 0
    assert await matched(failed_after=times[3]) + await matched(failed_before=times[3]) == 5
    await broker.queues.create(Queue("elsewhere"))
    results = await redrive_all(broker, RedriveOrder("dead", "elsewhere", limit=2))
    assert [result.queue for result in results] == ["elsewhere"] * 2
    assert [result.id for result in results] == [job.id for job in found[:2]]
    assert len(await jobs_in(broker, "dead")) == 3 and len(await jobs_in(broker, "elsewhere")) == 2


async def test_a_redrive_spreads_the_starts(broker: Broker) -> None:
    await queues(broker)
    await publish(broker, 4)
    await fail_all(broker, 4)
    await arrived(broker, 4)
    results = await redrive_all(broker, RedriveOrder("dead", rate=0.5, limit=4))
    jobs = [await broker.get_job("work", result.new_id) for result in results if result.new_id]
    starts = [job.start_after for job in jobs]
    assert [(later - starts[1]).total_seconds() for later in starts[1:]] == [0, 2, 4]


async def test_what_cannot_be_redriven_stays_claimable_and_is_told_of(broker: Broker) -> None:
    await queues(broker, policy=Policy.EXCLUSIVE)
    await publish(broker, labels=Labels(key="k"))
    await fail_all(broker, 1)
    [letter] = await arrived(broker, 1)
    [direct] = await publish(broker, queue="dead")
    [blocker] = await publish(broker, labels=Labels(key="k"))
    results = {result.id: result for result in await redrive_all(broker, RedriveOrder("dead"))}
    assert results[letter.id] == Redriven(letter.id, "work", None, Refusal.POLICY, blocker)
    assert results[direct] == Redriven(direct, "", None, Refusal.NO_ORIGIN)
    async with Worker(broker, subscription("dead")) as worker:
        assert {delivery.handle.job_id for delivery in await worker.receive(2)} == {letter.id, direct}


async def test_finished_dead_letters_are_redriven_if_told_so(broker: Broker) -> None:
    await queues(broker)
    await broker.queues.create(Queue("last"))
    await publish(broker, 3)
    await fail_all(broker, 3)
    [one, two, three] = await arrived(broker, 3)
    async with Worker(broker, subscription("dead")) as worker:
        handles = {d.handle.job_id: d.handle for d in await worker.receive(3)}
        await worker.ack(handles[one.id])
        await worker.ack(handles[two.id], outcome=GONE)
        await broker.change_queue("dead", QueuePatch(JobOptionsPatch(dead_letter="last")))
        await worker.ack(handles[three.id], outcome=GONE)
    assert await redrive_all(broker, RedriveOrder("dead")) == []
    results = {result.id: result for result in await redrive_all(broker, RedriveOrder("dead", finished=True))}
    assert results[three.id].refusal is Refusal.WENT_ON
    assert results[one.id].new_id is not None and results[two.id].new_id is not None
    assert [job.id for job in await jobs_in(broker, "dead")] == [three.id]
    assert len(await jobs_in(broker, "work", JobState.CREATED)) == 2


async def test_what_fails_again_meanwhile_is_left_for_the_next_redrive(broker: Broker) -> None:
    await queues(broker)
    await publish(broker, 150)
    await fail_all(broker, 150)
    await arrived(broker, 150)
    order = RedriveOrder("dead")
    step = await broker.dead_letters.redrive(order, RedrivePlace())
    assert len(step.results) == 100 and step.next is not None
    await fail_all(broker, 100)
    await arrived(broker, 150)
    place: RedrivePlace | None = step.next
    rest = 0
    while place is not None:
        step = await broker.dead_letters.redrive(order, place)
        rest += len(step.results)
        place = step.next
    assert rest == 50 and len(await jobs_in(broker, "dead")) == 100


async def test_two_redrives_at_once_and_a_worker_beside_them_take_each_letter_once(replica: Replica) -> None:
    first, second = await replica(), await replica()
    await queues(first)
    await publish(first, 300)
    await fail_all(first, 300)
    found = await arrived(first, 300)
    async with Worker(second, subscription("dead", credits=20)) as worker:
        one, other = await asyncio.gather(
            redrive_all(first, RedriveOrder("dead")), redrive_all(second, RedriveOrder("dead"))
        )
        moved = [result.id for result in (*one, *other) if result.new_id is not None]
        taken = [delivery.handle.job_id for delivery in worker.deliveries]
        assert len(set(moved)) == len(moved) and not set(moved) & set(taken)
        left = {job.id for job in await jobs_in(first, "dead")}
        assert left | set(moved) == {job.id for job in found} and not left & set(moved)
        assert len(await jobs_in(first, "work", JobState.CREATED)) == len(moved)


class Crashing(Database):
    """Loses its connection after so many statements, before the next one or the commit."""

    left = 10**9

    async def run(self, connection: Connection, name: str, params: Any = None) -> Sequence[Row]:
        rows = await super().run(connection, name, params)
        self.left -= 1
        if self.left < 0:
            with socket.socket(fileno=os.dup(connection.fileno())) as cut:
                cut.shutdown(socket.SHUT_RDWR)
        return rows


async def test_a_crash_at_any_point_of_a_redrive_loses_and_doubles_nothing(
    broker: Broker, postgres: Postgres, schema: str
) -> None:
    await queues(broker, policy=Policy.SHORT)
    await publish(broker, 1, labels=Labels(key="a"))
    await publish(broker, 1, labels=Labels(key="b"))
    await fail_all(broker, 2)
    found = {job.id for job in await arrived(broker, 2)}
    await publish(broker, 1, labels=Labels(key="a"))
    crashes = 0
    for after in range(20):
        async with Crashing(postgres.dsn, schema) as database:
            database.left = after
            try:
                # What the one before held is free when the database has seen its end.
                while len((await redriving.redrive(database, RedriveOrder("dead"), RedrivePlace())).results) < 2:
                    database.left = after
            except Exception:
                crashes += 1
                assert {job.id for job in await jobs_in(broker, "dead", JobState.CREATED)} == found
                assert len(await jobs_in(broker, "work", JobState.CREATED)) == 1
            else:
                break
    assert crashes == 7
    assert len(await jobs_in(broker, "dead", JobState.CREATED)) == 1
    assert len(await jobs_in(broker, "work", JobState.CREATED)) == 2


async def blocked(broker: Broker, count: int, queue: str = "work") -> list[str]:
    async with asyncio.timeout(30):
        while len(keys := await broker.dead_letters.blocked_keys(queue, None, 100)) != count:
            await asyncio.sleep(0.02)
    return [key.key for key in keys]


async def fifo(broker: Broker, keys: str, **options: Any) -> dict[str, list[UUID]]:
    """A strict queue with three jobs for each key, the first of which has failed."""
    await broker.queues.create(Queue("dead"))
    await broker.queues.create(Queue("work", replace(NO_RETRY, **options), policy=Policy.KEY_STRICT_FIFO))
    ids = {key: await publish(broker, 3, labels=Labels(key=key)) for key in keys}
    await fail_all(broker, len(keys))
    assert await blocked(broker, len(keys)) == sorted(keys)
    return ids


async def test_a_failed_job_holds_up_its_key_until_somebody_decides(broker: Broker) -> None:
    ids = await fifo(broker, "abcde")
    first, second = await broker.dead_letters.blocked_keys("work", None, 2)
    assert (first.key, first.job_id, first.waiting) == ("a", ids["a"][0], 2) and first.since is not None
    assert [key.key for key in await broker.dead_letters.blocked_keys("work", second.key, 10)] == ["c", "d", "e"]
    await broker.change_queue("work", QueuePatch(JobOptionsPatch(dead_letter="dead")))
    async with Worker(broker, subscription(credits=10)) as worker:
        unblock = broker.dead_letters.unblock
        results = await unblock("work", ["a", "x"], Unblock.SKIP)
        assert [result.status for result in results] == [UnblockStatus.DONE, UnblockStatus.NOT_BLOCKED]
        assert (await worker.receive(1))[-1].handle.job_id == ids["a"][1]
        assert (await unblock("work", ["a"], Unblock.RETRY))[0].status is UnblockStatus.NOT_BLOCKED
        await unblock("work", ["b"], Unblock.RETRY)
        retried = (await worker.receive(2))[-1]
        assert (retried.handle.job_id, retried.attempt, retried.retry_count) == (ids["b"][0], 2, 0)
        await unblock("work", ["c"], Unblock.DEAD_LETTER)
        assert (await worker.receive(3))[-1].handle.job_id == ids["c"][1]
        [letter] = await arrived(broker, 1)
        assert letter.origin is not None and letter.origin.id == ids["c"][0]
        assert await blocked(broker, 2) == ["d", "e"]
        # The order of the retried key holds.
        await worker.ack(retried.handle)
        assert (await worker.receive(4))[-1].handle.job_id == ids["b"][1]
    assert len((await broker.get_job("work", ids["b"][0])).errors) == 1


async def test_two_who_decide_at_once_decide_once(replica: Replica) -> None:
    first, second = await replica(), await replica()
    ids = await fifo(first, "a")
    answers = await asyncio.gather(
        *(
            broker.dead_letters.unblock("work", ["a"], action)
            for action in (Unblock.SKIP, Unblock.RETRY)
            for broker in (first, second)
        )
    )
    assert sorted(answer[0].status for answer in answers) == [UnblockStatus.DONE] + [UnblockStatus.NOT_BLOCKED] * 3
    async with Worker(first, subscription()) as worker:
        one = (await worker.receive(1))[0]
        assert one.handle.job_id in ids["a"][:2]
        await worker.ack(one.handle)
        await worker.receive(2)


async def test_a_retry_takes_its_dead_letter_back_unless_somebody_has_begun_with_it(broker: Broker) -> None:
    ids = await fifo(broker, "ab", dead_letter="dead")
    first, second = await arrived(broker, 2)
    by_key = {job.labels.key: job for job in (first, second)}
    async with Worker(broker, subscription("dead", credits=1)) as worker:
        taken = (await worker.receive(1))[0].handle.job_id
        [theirs] = [key for key, job in by_key.items() if job.id == taken]
        [other] = by_key.keys() - {theirs}
        results = {r.key: r for r in await broker.dead_letters.unblock("work", ["a", "b"], Unblock.RETRY)}
        assert results[theirs or ""].status is UnblockStatus.DEAD_LETTER_TAKEN
        assert results[other or ""].status is UnblockStatus.DONE
        assert [job.id for job in await jobs_in(broker, "dead")] == [taken]
    assert await blocked(broker, 1) == [theirs]
    async with Worker(broker, subscription()) as worker:
        assert (await worker.receive(1))[0].handle.job_id == ids[other or ""][0]


async def test_a_job_that_waits_too_long_is_cancelled(broker: Broker) -> None:
    await broker.queues.create(Queue("work", policy=Policy.SINGLETON))
    labels = Labels(key="k")
    [running, blocked_one] = await publish(broker, 2, labels=labels)
    [later] = await publish(broker, start_in_ms=600_000)
    async with Worker(broker, subscription(credits=1)) as worker:
        await worker.receive(1)
        [ready] = await publish(broker, labels=Labels(key="other"))
        await broker.change_queue("work", QueuePatch(waiting_ms=1_000))
        cancelled = {blocked_one, ready}
        async with asyncio.timeout(30):
            while {job.id for job in await jobs_in(broker, "work", JobState.CANCELLED)} != cancelled:
                await asyncio.sleep(0.05)
    job = await broker.get_job("work", ready)
    assert [(error.type, error.attempt, error.started_at) for error in job.errors] == [("WAITED_TOO_LONG", 0, None)]
    assert {job.id for job in await jobs_in(broker, "work") if not job.state.finished} <= {running, later}


async def test_unused_dead_letters_write_nothing(broker: Broker, postgres: Postgres, schema: str) -> None:
    await publish(broker, 3, options=JobOptionsPatch(retry_limit=0))
    await fail_all(broker, 3)
    async with opened(postgres.dsn, schema) as database, database.connection() as connection:
        assert (await row(connection, f'SELECT count(*) AS n FROM "{schema}".dead_letter')).n == 0
    assert await broker.dead_letters.undelivered(None, None, 10) == []

"""Correct histories pass the checker, and what nobody can know is held against nobody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import history
from tests.chaos.history import Fault, Record
from tests.chaos.story import QUEUE, Session, Story, holds, job_id, killed


class TestCorrect:
    """What the protocol allows, the checker allows."""

    def test_a_plain_run(self, story: Story) -> None:
        story.publish("a", "b", "c")
        worker = Session(story)
        worker.work("a", "b")
        worker.beat()
        worker.work("c")
        worker.close()
        report = story.report()
        assert report.ok, str(report)
        assert (report.published, report.acknowledged, report.outcomes) == (3, 3, 3)
        assert (report.claims, report.deliveries) == (3, 3)

    def test_a_repeated_publish_meets_its_job(self, story: Story) -> None:
        story.publish("a", answered=False)
        story.publish("a")
        Session(story).work("a")
        story.publish("a")
        holds(story)

    def test_a_publish_without_an_answer_may_have_stored_nothing(self, story: Story) -> None:
        story.publish("a", stored=False, answered=False)
        holds(story)

    def test_a_publish_without_an_answer_may_have_stored_its_jobs(self, story: Story) -> None:
        story.publish("a", answered=False)
        Session(story).work("a")
        holds(story)

    def test_runs_that_fail_until_no_retry_is_left(self, story: Story) -> None:
        story.publish("a", retry_limit=1)
        worker = Session(story)
        worker.ack(*worker.take("a"), what="fail")
        worker.ack(*worker.take("a"), what="fail")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {"failed": 1}

    def test_a_permanent_failure(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="permanent")
        holds(story)

    def test_a_release(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="release")
        worker.work("a")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {"released": 1}

    def test_a_session_that_is_closed_gives_its_jobs_back(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.close(*worker.take("a"))
        Session(story, "worker-2").work("a")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {"closed": 1}

    def test_a_worker_that_is_killed(self, story: Story) -> None:
        story.publish("a")
        lost = killed(story)
        story.give_back(lost, lost=True)
        Session(story, "worker-2").work("a")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {"lost: kill worker": 1}
        (gap,) = report.gaps["lost: kill worker"]
        assert 15 < gap < 16

    def test_a_poison_job(self, story: Story) -> None:
        story.publish("a")
        for _ in range(5):
            story.give_back(killed(story), lost=True)
        assert story.outcome("a").state == "failed"
        holds(story)

    def test_an_owner_that_is_killed_while_its_worker_lives(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        (held,) = worker.take("a")
        # Claimed, and gone with the server before it arrived.
        unseen = worker.claim("b")
        story.fault("kill", "server-1", 2.0)
        worker.broken()
        story.give_back(*unseen)
        worker.resume(held)
        worker.ack(held)
        worker.work("b")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {}

    def test_a_deploy_touches_no_running_job(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        held = worker.take("a", "b")
        story.fault("restart", "server-1", 3.0)
        worker.drained()
        worker.resume(*held)
        worker.ack(*held)
        holds(story)

    def test_a_session_that_died_with_its_owner(self, story: Story) -> None:
        story.publish("a", "b", "c")
        lost = killed(story)
        story.fault("kill", "server-1", 5.0)
        other = Session(story, "worker-2")
        other.beats(60)
        other.work("b")
        other.beats(10)
        story.give_back(lost)
        other.work("a", "c")
        holds(story)

    def test_a_time_limit(self, story: Story) -> None:
        story.publish("a", retry_limit=1)
        worker = Session(story)
        for _ in range(2):
            (late,) = worker.take("a")
            worker.beats(900)
            worker.stop(late, "EXPIRED")
            worker.beats(30)
            story.give_back(late, expired=True)
            worker.ack(late, applied=False, status="LEASE_LOST")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {"time limit": 1}

    def test_cancellations(self, story: Story) -> None:
        story.publish("waiting", "running", "faster")
        worker = Session(story)
        running, faster = worker.take("running", "faster")
        story.cancel("waiting", "CANCELLED")
        story.cancel("running", "REQUESTED")
        story.cancel("faster", "REQUESTED")
        worker.stop(running, "REQUESTED")
        worker.ack(faster)
        story.finish(job_id("running"), "cancelled", str(running.token))
        worker.ack(running, what="fail", applied=False, status="CANCELLED")
        holds(story)

    def test_a_cancelled_job_that_had_failed_before(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="fail")
        story.cancel("a", "CANCELLED")
        holds(story)

    def test_a_restore_undoes_what_lies_between_it_and_the_backup(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        (held,) = worker.take("a")
        start = story.t
        story.publish("gone")
        del story.rows[job_id("gone")]
        worker.ack(held, applied=False)
        cancelled = replace(story.rows[job_id("b")])
        story.cancel("b", "CANCELLED")
        story.end.outcomes.clear()
        story.rows[cancelled.id] = cancelled
        story.events.append(Fault(start, "runner", 0, "restore", "postgres", story.t + 1))
        story.wait(2)
        story.give_back(held)
        Session(story).work("a", "b")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {"restored": 1}


class TestUnknown:
    """What a client cannot know is held against nobody."""

    def test_a_complete_without_an_answer_that_was_applied(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.ack(held, status=None)
        worker.ack(held, applied=False, status="ALREADY_APPLIED")
        holds(story)

    def test_a_complete_without_an_answer_that_was_not_applied(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.ack(held, applied=False, status=None)
        worker.ack(held)
        holds(story)

    @pytest.mark.parametrize("what", ["fail", "release"])
    def test_a_fail_or_release_without_an_answer_that_was_applied(self, story: Story, what: str) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.ack(held, what=what, status=None)
        worker.ack(*worker.take("a"), what=what)
        # Known only until the job's next one.
        worker.ack(held, what=what, applied=False, status="LEASE_LOST")
        worker.work("a")
        holds(story)

    def test_a_fail_without_an_answer_that_was_not_applied(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.ack(held, what="fail", applied=False, status=None)
        story.fault("kill", "worker-1")
        story.wait(15.0)
        story.give_back(held, lost=True)
        Session(story, "worker-2").work("a")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {"lost: kill worker": 1}

    def test_a_late_answer_of_an_old_stream(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        story.fault("cut", "worker-1", 1.0)
        call = story.call()
        story.note(history.Ack, worker.who, call, worker.id, 2, None, False, [(str(held), "complete")])
        story.settle(held, "complete")
        worker.resume(held, lost=[held])
        worker.ack(held, applied=False, status="ALREADY_APPLIED")
        story.note(history.Acked, worker.who, call, ["APPLIED"], True)
        holds(story)

    def test_an_event_of_an_old_stream_that_the_client_reads_no_more(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story, credits=1)
        unread = worker.claim("a")
        old = worker.stream
        # The client resumes; the event of the old stream arrives in between.
        worker.resume()
        again = story.events[-2:]
        story.give_back(*unread)
        handle = str(unread[0])
        arrived = history.Delivered(again[1].t - 0.005, "worker-1", old, 2, [(handle, QUEUE, job_id("a"), 1, 0, 0)])
        story.events.append(arrived)
        worker.work("a")
        report = story.report()
        assert report.ok, str(report)
        assert report.redeliveries == {"not received before the resume": 1}

    def test_what_a_killed_worker_saw_last_is_missing(self, tmp_path: Path, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (lost,) = worker.take("a")
        story.fault("kill", "worker-1")
        story.wait(15.0)
        story.give_back(lost)
        written = [event for event in story.events if event.who == "worker-1"]
        rest = [event for event in story.events if event.who != "worker-1"]
        write(tmp_path, "worker-1", written)
        path = tmp_path / "worker-1.jsonl"
        whole = path.read_bytes()
        # The delivery's line and what followed it: cut in the middle.
        path.write_bytes(whole[: whole.index(b'["delivered"') + 20])
        start = len(written)
        story.events = []
        Session(story).work("a")
        write(tmp_path, "worker-1", story.events)
        events = history.read(tmp_path)
        assert len(events) == start - 2 + len(story.events)
        story.events = [*rest, *events]
        report = story.report()
        assert report.ok, str(report)
        assert report.deliveries == 1

    def test_an_ack_to_another_replica_lowers_the_credits_later(self, story: Story) -> None:
        story.publish("a", "b", "c")
        worker = Session(story, credits=3)
        held = worker.take("a")
        worker.ack(credits=1)
        held += worker.take("b")
        worker.ack(*held)
        worker.work("c")
        holds(story)

    def test_credits_that_were_raised_hold_before_the_answer(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story, credits=1)
        held = worker.take("a")
        call = story.call()
        story.note(history.Ack, worker.who, call, worker.id, 2, 2, False, [])
        held += worker.take("b")
        story.note(history.Acked, worker.who, call, [], True)
        worker.ack(*held)
        holds(story)

    def test_claims_that_run_side_by_side(self, story: Story) -> None:
        story.publish("a", "b")
        story.wait(10)
        one, two = Session(story), Session(story, "worker-2")
        two.work("b")
        one.work("a")
        holds(story)

    def test_a_job_that_has_just_been_stored_may_be_overtaken(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        story.wait(0.5)
        worker.work("b")
        story.wait(2)
        worker.work("a")
        holds(story)

    def test_when_a_job_was_stored_whose_publish_had_no_answer(self, story: Story) -> None:
        story.publish("a", answered=False)
        story.publish("b")
        story.wait(10)
        worker = Session(story)
        worker.work("b")
        story.wait(2)
        worker.work("a")
        holds(story)

    def test_a_claim_that_was_rolled_back_lets_others_pass_once(self, story: Story) -> None:
        story.publish("a", "b", "c")
        story.wait(10)
        story.fault("kill-backend", "postgres")
        worker = Session(story)
        worker.work("b")
        story.wait(2)
        worker.work("a", "c")
        holds(story)

    def test_a_first_claim_whose_result_was_lost(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        story.fault("cut", "server-1 to postgres", 1.0)
        unseen = worker.claim("a")
        story.wait(5)
        worker.work("b")
        story.give_back(*unseen)
        worker.work("a")
        holds(story)


def write(folder: Path, who: str, events: list[history.Event]) -> None:
    """As a process of this name does that has just been started."""
    Record(folder, who)
    with (folder / f"{who}.jsonl").open("a", encoding="utf-8") as file:
        for event in events:
            file.write(json.dumps([event.kind, event.t, event.call, *history.values_of(event)]) + "\n")


def test_the_report_keeps_some_violations_and_counts_all(story: Story) -> None:
    story.publish(*(f"job {number}" for number in range(50)))
    report = story.report()
    assert report.counts == {"lost": 50}
    assert len(report.violations) == 20
    assert "lost: 30 more" in str(report)

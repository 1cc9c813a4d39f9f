"""The checker itself: correct histories pass, and each planted violation is found under its own name and no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import history
from tests.chaos.history import Fault, Record, Terms
from tests.chaos.story import QUEUE, Session, Story, job_id


@pytest.fixture
def story() -> Story:
    return Story()


def holds(story: Story) -> None:
    report = story.report()
    assert report.ok, str(report)


def breaks(story: Story, *invariants: str) -> None:
    report = story.report()
    assert set(report.counts) == set(invariants), str(report)


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


def killed(story: Story, *, link: bool = False) -> Any:
    """A worker takes job `a`, is proven to have received it, dies, and its grace passes."""
    worker = Session(story)
    (lost,) = worker.take("a")
    worker.beat()
    if link:
        story.fault("cut", "worker-1", 20.0)
    else:
        story.fault("kill", "worker-1")
    story.wait(15.0)
    return lost


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


class TestLost:
    def test_a_job_that_is_gone(self, story: Story) -> None:
        story.publish("a", "b")
        Session(story).work("a", "b")
        story.end.outcomes = [outcome for outcome in story.end.outcomes if outcome.id != job_id("a")]
        report = story.report()
        assert set(report.counts) == {"lost"}
        assert report.lost == 1

    def test_a_job_that_is_not_finished(self, story: Story) -> None:
        story.publish("a")
        breaks(story, "lost")

    def test_a_job_that_a_repeated_publish_was_told_of(self, story: Story) -> None:
        story.publish("a", answered=False)
        story.publish("a")
        story.rows.clear()
        breaks(story, "lost")


class TestDoubleOutcome:
    def test_twice_in_the_archive(self, story: Story) -> None:
        story.publish("a")
        Session(story).work("a")
        story.end.outcomes.append(replace(story.end.outcomes[0]))
        report = story.report()
        assert set(report.counts) == {"double outcome"}
        assert report.double_outcomes == 1

    def test_finished_and_live(self, story: Story) -> None:
        story.publish("a")
        Session(story).work("a")
        story.end.live.append((QUEUE, job_id("a"), "active"))
        breaks(story, "double outcome")


class TestStranger:
    def test_a_delivery_of_a_job_that_nobody_published(self, story: Story) -> None:
        story.publish("a")
        Session(story).work("a")
        del story.events[:2]
        breaks(story, "stranger")

    def test_a_delivery_of_such_a_job_without_a_claim(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.arrive(*worker.claim("a"))
        story.rows.clear()
        story.end.claims.clear()
        del story.events[:2]
        breaks(story, "stranger")

    def test_an_outcome_of_a_job_that_nobody_published(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        worker.work("a")
        story.cancel("b", "CANCELLED")
        story.events = [event for event in story.events if event.kind not in ("cancel", "cancel_answered")]
        story.events[0].jobs = story.events[0].jobs[:1]  # type: ignore[attr-defined]
        story.events[1].results = story.events[1].results[:1]  # type: ignore[attr-defined]
        breaks(story, "stranger")

    def test_an_outcome_by_a_delivery_that_no_claim_made(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.ack(held, status=None)
        story.outcome("a").token = job_id("no token")
        breaks(story, "stranger")


class TestUndone:
    def test_a_complete_whose_job_is_completed_by_another(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.ack(held, what="complete", applied=False, status="APPLIED")
        story.fault("kill", "worker-1")
        story.wait(15)
        story.give_back(held)
        Session(story, "worker-2").ack(*Session(story, "worker-2").take("a"), status=None)
        breaks(story, "undone")

    def test_a_complete_whose_job_failed(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.ack(held, what="permanent", status=None)
        worker.ack(held, applied=False)
        breaks(story, "undone")

    def test_an_applied_complete_whose_job_lives(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.ack(*worker.take("a"), applied=False)
        breaks(story, "undone", "lost")

    @pytest.mark.parametrize("status", ["APPLIED", "ALREADY_APPLIED"])
    @pytest.mark.parametrize("what", ["fail", "release"])
    def test_an_outcome_by_a_delivery_that_was_given_back(self, story: Story, what: str, status: str) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.ack(held, what=what, applied=False, status=status)
        story.settle(held, "complete")
        breaks(story, "undone")

    def test_an_outcome_by_a_delivery_before_the_one_that_was_given_back(self, story: Story) -> None:
        story.publish("a")
        old = killed(story)
        story.give_back(old)
        other = Session(story, "worker-2")
        other.ack(*other.take("a"), what="release")
        story.settle(old, "complete")
        story.outcome("a").attempt = 1
        breaks(story, "undone")

    def test_a_failed_run_whose_attempt_is_claimed_again(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="release", applied=False)
        story.wait(1)
        worker.work("a")
        breaks(story, "undone", "two leases", "handlers")

    def test_a_cancelled_job_that_is_completed(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        held = worker.take("a")
        story.cancel("b", "CANCELLED")
        worker.ack(*held)
        story.events = [
            replace(event, jobs=[job_id("a")]) if isinstance(event, history.Cancel) else event for event in story.events
        ]
        breaks(story, "undone")

    def test_a_job_that_was_to_be_cancelled_is_delivered_again(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        story.cancel("a", "REQUESTED")
        story.wait(1)
        worker.ack(held, what="fail")
        worker.work("a")
        breaks(story, "undone")


class TestStaleAccepted:
    @pytest.mark.parametrize("what", ["complete", "extend", "fail"])
    def test_an_ack_after_the_next_delivery(self, story: Story, what: str) -> None:
        story.publish("a")
        lost = killed(story)
        story.give_back(lost, lost=True)
        other = Session(story, "worker-2")
        held = other.take("a")
        story.wait(1)
        Session(story).ack(lost, what=what, applied=False)
        other.ack(*held)
        if what == "fail":
            story.outcome("a").retry_count += 1
        report = story.report()
        assert set(report.counts) - {"undone"} == {"stale accepted"}, str(report)
        assert report.stale_accepted == 1

    def test_an_ack_after_the_next_claim(self, story: Story) -> None:
        story.publish("a")
        lost = killed(story)
        story.give_back(lost, lost=True)
        other = Session(story, "worker-2")
        handles = other.claim("a")
        story.wait(1)
        Session(story).ack(lost, what="extend", applied=False)
        other.arrive(*handles)
        other.ack(*handles)
        breaks(story, "stale accepted")

    def test_a_handle_that_is_settled_twice(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.work("a")
        worker.ack(held, applied=False)
        breaks(story, "stale accepted")

    def test_an_extension_of_a_delivery_that_is_done(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.work("a")
        story.wait(1)
        worker.ack(held, what="extend", applied=False)
        breaks(story, "stale accepted")

    def test_two_deliveries_that_both_complete(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        # Sent in time, and answered when the other had won.
        call = story.call()
        story.note(history.Ack, worker.who, call, worker.id, 2, None, False, [(str(held), "complete")])
        story.fault("kill", "server-1")
        story.give_back(held)
        Session(story, "worker-2").work("a")
        story.note(history.Acked, worker.who, call, ["APPLIED"], True)
        breaks(story, "stale accepted", "undone")


class TestTwoLeases:
    def test_an_attempt_that_is_claimed_twice(self, story: Story) -> None:
        story.publish("a")
        lost = killed(story)
        story.rows[job_id("a")].attempt = 1
        Session(story, "worker-2").work("a")
        del lost
        breaks(story, "two leases", "handlers")

    def test_an_attempt_that_is_claimed_before_the_one_before_it(self, story: Story) -> None:
        story.publish("a")
        lost = killed(story)
        story.give_back(lost, lost=True)
        Session(story, "worker-2").work("a")
        story.end.claims[1].t = story.end.claims[0].t - 1
        report = story.report()
        assert "two leases" in report.counts, str(report)

    def test_a_handle_that_arrives_twice(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        handles = worker.claim("a")
        worker.arrive(*handles)
        worker.arrive(*handles)
        worker.ack(*handles)
        breaks(story, "two leases")

    def test_a_delivery_to_another_session(self, story: Story) -> None:
        story.publish("a")
        worker, other = Session(story), Session(story, "worker-2")
        handles = worker.claim("a")
        other.arrive(*handles)
        other.ack(*handles)
        breaks(story, "two leases")

    def test_a_delivery_to_a_stream_that_was_taken_over(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        handles = worker.claim("a")
        worker.resume()
        worker.arrive(*handles)
        worker.ack(*handles)
        breaks(story, "two leases")

    def test_a_delivery_of_another_attempt(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        handles = worker.claim("a")
        story.end.claims[0].attempts = [2]
        worker.arrive(*handles)
        worker.ack(*handles)
        story.outcome("a").attempt = 2
        breaks(story, "two leases")

    def test_a_delivery_without_a_claim(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        handles = worker.claim("a")
        worker.arrive(*handles)
        story.end.claims.clear()
        worker.ack(*handles, applied=False, status="LEASE_LOST")
        worker.work("b", "a")
        breaks(story, "two leases")

    def test_a_token_that_is_claimed_twice(self, story: Story) -> None:
        story.publish("a", "b")
        Session(story).work("a", "b")
        story.end.claims.append(replace(story.end.claims[0], ids=[job_id("b")], attempts=[2], t=story.t))
        report = story.report()
        assert "two leases" in report.counts, str(report)


class TestCredits:
    def test_more_deliveries_than_credits(self, story: Story) -> None:
        story.publish("a", "b", "c")
        worker = Session(story, credits=2)
        worker.ack(*worker.take("a", "b"), *worker.take("c"))
        breaks(story, "credits")

    def test_a_credit_does_not_return_with_an_extension(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story, credits=1)
        held = worker.take("a")
        worker.ack(*held, what="extend")
        worker.ack(*held, *worker.take("b"))
        breaks(story, "credits")

    def test_what_is_held_at_a_resume_is_in_flight(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story, credits=1)
        held = worker.take("a")
        story.fault("cut", "worker-1", 1.0)
        worker.resume(*held)
        worker.ack(*held, *worker.take("b"))
        breaks(story, "credits")

    def test_what_is_lost_at_a_resume_is_not(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story, credits=1)
        held = worker.take("a")
        story.fault("cut", "worker-1", 1.0)
        story.give_back(*held)
        worker.resume(*held, lost=held)
        worker.work("b")
        worker.work("a")
        holds(story)

    def test_credits_that_were_lowered(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story, credits=2)
        held = worker.take("a")
        worker.ack(credits=1)
        worker.beats(10)
        worker.ack(*held, *worker.take("b"))
        breaks(story, "credits")

    def test_a_resume_with_fewer_credits(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story, credits=2)
        held = worker.take("a")
        story.fault("restart", "server-1", 1.0)
        worker.drained()
        worker.resume(*held, credits=1)
        worker.ack(*held, *worker.take("b"))
        breaks(story, "credits")


class TestOrder:
    def test_a_job_that_is_overtaken_by_a_later_one(self, story: Story) -> None:
        story.publish("a", "b")
        story.wait(10)
        worker = Session(story)
        worker.work("b")
        story.wait(2)
        worker.work("a")
        breaks(story, "order")

    def test_a_job_that_is_overtaken_by_one_of_lower_priority(self, story: Story) -> None:
        story.publish("low")
        story.publish("high", priority=5)
        story.wait(10)
        worker = Session(story)
        worker.work("low")
        story.wait(2)
        worker.work("high")
        breaks(story, "order")

    def test_a_job_that_is_overtaken_until_it_is_cancelled(self, story: Story) -> None:
        story.publish("a", "b")
        story.wait(10)
        Session(story).work("b")
        story.wait(2)
        story.cancel("a", "CANCELLED")
        breaks(story, "order")

    def test_a_job_that_is_overtaken_again_after_a_claim_was_rolled_back(self, story: Story) -> None:
        story.publish("a", "b", "c")
        story.wait(10)
        story.fault("kill-backend", "postgres")
        worker = Session(story)
        worker.work("b")
        story.wait(5)
        worker.work("c")
        story.wait(2)
        worker.work("a")
        breaks(story, "order")

    def test_a_job_that_was_scheduled_has_no_place(self, story: Story) -> None:
        story.publish("a", scheduled=True)
        story.publish("b")
        story.wait(10)
        worker = Session(story)
        worker.work("b")
        story.wait(2)
        worker.work("a")
        holds(story)

    def test_a_job_that_comes_back_has_had_its_turn(self, story: Story) -> None:
        story.publish("a", "b")
        story.wait(10)
        worker = Session(story)
        worker.ack(*worker.take("a"), what="release")
        worker.work("b")
        story.wait(20)
        worker.work("a")
        holds(story)

    def test_a_job_of_higher_priority_that_comes_later_goes_first(self, story: Story) -> None:
        story.publish("low")
        story.wait(10)
        story.publish("high", priority=5)
        worker = Session(story)
        worker.work("high")
        story.wait(5)
        worker.work("low")
        holds(story)


class TestEarly:
    def test_a_cut_that_is_not_waited_out(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (lost,) = worker.take("a")
        worker.beats(10)
        story.fault("cut", "worker-1", 1.0)
        worker.broken()
        story.give_back(lost)
        Session(story, "worker-2").work("a")
        breaks(story, "early")

    def test_heartbeats_that_are_not_waited_for(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (lost,) = worker.take("a")
        worker.beats(10)
        story.fault("freeze", "worker-1", 12.0)
        story.give_back(lost)
        Session(story, "worker-2").work("a")
        breaks(story, "early")

    def test_three_heartbeats_that_are(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (lost,) = worker.take("a")
        worker.beats(10)
        story.wait(4.0)
        story.fault("freeze", "worker-1", 12.0)
        story.give_back(lost, lost=True)
        Session(story, "worker-2").work("a")
        holds(story)

    def test_what_was_hardly_sent_goes_back_at_once(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (lost,) = worker.take("a")
        story.fault("cut", "worker-1", 0.1)
        worker.broken()
        story.give_back(lost)
        worker.resume(lost, lost=[lost])
        worker.work("a")
        holds(story)


class TestLate:
    def late(self, story: Story, *, seconds: float) -> None:
        story.publish("a", "b")
        lost = killed(story)
        other = Session(story, "worker-2")
        other.beats(seconds)
        other.work("b")
        story.wait(1)
        story.give_back(lost, lost=True)
        other.work("a")

    def test_a_dead_workers_job_within_the_grace(self, story: Story) -> None:
        self.late(story, seconds=15)
        holds(story)

    def test_a_dead_workers_job_after_the_grace(self, story: Story) -> None:
        self.late(story, seconds=90)
        breaks(story, "late")

    def test_a_dead_owners_job_after_the_grace(self, story: Story) -> None:
        story.publish("a", "b")
        lost = killed(story)
        story.fault("kill", "server-1")
        other = Session(story, "worker-2")
        other.beats(150)
        other.work("b")
        story.wait(1)
        story.give_back(lost)
        other.work("a")
        breaks(story, "late")

    def test_a_drained_owners_job_has_a_longer_grace(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        (lost,) = worker.take("a")
        worker.beat()
        story.fault("restart", "server-1", 1.0)
        worker.drained()
        story.fault("kill", "worker-1")
        other = Session(story, "worker-2")
        other.beats(290)
        other.work("b")
        story.wait(1)
        story.give_back(lost)
        other.work("a")
        holds(story)
        story.terms = Terms(drain_grace=100)
        breaks(story, "late")

    def test_the_database_was_away_meanwhile(self, story: Story) -> None:
        story.publish("a", "b")
        lost = killed(story)
        story.fault("stop", "postgres", 120.0)
        other = Session(story, "worker-2")
        other.beats(30)
        other.work("b")
        story.wait(1)
        story.give_back(lost)
        other.work("a")
        holds(story)

    def test_nobody_was_there_to_take_it(self, story: Story) -> None:
        story.publish("a", "b")
        lost = killed(story)
        story.give_back(lost, lost=True)
        story.wait(200)
        Session(story, "worker-2").work("a", "b")
        holds(story)


class TestWronglyCounted:
    def test_a_retry_that_no_failure_used_up(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="release")
        worker.work("a")
        story.outcome("a").retry_count = 1
        report = story.report()
        assert set(report.counts) == {"wrongly counted"}
        assert report.retries_wrong == 1

    def test_a_failure_that_used_up_no_retry(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="fail")
        worker.work("a")
        story.outcome("a").retry_count = 0
        breaks(story, "wrongly counted")

    def test_a_time_limit_that_had_not_passed(self, story: Story) -> None:
        story.publish("a")
        lost = killed(story)
        story.give_back(lost, expired=True)
        Session(story, "worker-2").work("a")
        breaks(story, "wrongly counted")

    def test_a_loss_without_a_fault_of_the_worker(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beat()
        story.fault("kill", "server-1")
        story.give_back(held, lost=True)
        Session(story, "worker-2").work("a")
        report = story.report()
        assert set(report.counts) == {"wrongly counted"}
        assert report.losses_wrong == 1

    def test_a_loss_of_a_delivery_whose_receipt_was_not_proven(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        story.fault("kill", "worker-1")
        story.wait(15)
        story.give_back(held, lost=True)
        Session(story, "worker-2").work("a")
        breaks(story, "wrongly counted")

    def test_a_job_that_failed_with_retries_left(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        story.rows[job_id("a")].retry_limit = 0
        worker.ack(held, what="fail")
        story.outcome("a").retry_limit = 2
        breaks(story, "wrongly counted")

    def test_a_job_that_failed_without_a_failure(self, story: Story) -> None:
        story.publish("a", retry_limit=0)
        lost = killed(story)
        story.give_back(lost, expired=True)
        breaks(story, "wrongly counted")

    def test_a_poison_job_with_too_few_losses(self, story: Story) -> None:
        story.publish("a")
        for _ in range(5):
            story.give_back(killed(story), lost=True)
        story.outcome("a").loss_count = 4
        breaks(story, "wrongly counted")


class TestUnexplained:
    def test_a_redelivery_without_a_cause(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beats(30)
        story.give_back(held)
        Session(story, "worker-2").work("a")
        report = story.report()
        assert set(report.counts) == {"unexplained"}
        assert report.unexplained == 1
        assert report.redeliveries == {"unexplained": 1}

    def test_a_fault_of_another_worker_is_no_cause(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beats(30)
        story.fault("kill", "worker-2")
        story.fault("cut", "publisher-1")
        story.give_back(held)
        worker.work("a")
        breaks(story, "unexplained")

    def test_a_fault_that_was_survived_is_no_cause(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        story.fault("cut", "worker-1", 1.0)
        worker.resume(held)
        worker.beats(30)
        story.give_back(held)
        worker.work("a")
        breaks(story, "unexplained")

    def test_a_lease_listed_lost_without_a_cause(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beats(30)
        story.give_back(held)
        worker.broken()
        worker.resume(held, lost=[held])
        # What hits the service later explains nothing.
        story.wait(30)
        story.fault("kill", "server-1")
        worker.work("a")
        breaks(story, "unexplained")

    def test_a_delivery_that_the_worker_did_not_name_as_held(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beats(30)
        worker.broken()
        worker.resume()
        story.give_back(held)
        worker.work("a")
        breaks(story, "unexplained")

    def test_a_live_lease_that_an_ack_finds_lost(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beats(30)
        worker.ack(held, applied=False, status="LEASE_LOST")
        story.settle(held, "complete")
        breaks(story, "unexplained")

    def test_no_fault_makes_a_lease_lost_that_then_completes(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beats(30)
        story.fault("kill", "server-1")
        worker.ack(held, applied=False, status="LEASE_LOST")
        story.settle(held, "complete")
        breaks(story, "unexplained")

    def test_a_job_that_an_ack_does_not_find(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beats(30)
        worker.ack(held, applied=False, status="NOT_FOUND")
        story.settle(held, "complete")
        breaks(story, "unexplained")


class TestDeploy:
    def test_a_running_job_that_is_delivered_again(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beat()
        story.fault("restart", "server-1", 2.0)
        worker.drained()
        story.give_back(held)
        worker.resume(held, lost=[held])
        worker.work("a")
        report = story.report()
        assert set(report.counts) == {"deploy"}
        assert report.redeliveries == {"deploy": 1}

    def test_an_ack_that_is_refused(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        story.fault("restart", "server-1", 2.0)
        worker.drained()
        worker.ack(held, applied=False, status="LEASE_LOST")
        story.give_back(held)
        Session(story, "worker-2").work("a")
        breaks(story, "deploy")

    def test_a_handler_that_is_stopped_for_it(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        worker.beat()
        story.fault("restart", "server-1", 2.0)
        story.note(history.Finished, "worker-1", 0, job_id("a"), 1, "stopped")
        worker.ack(held, what="release")
        worker.work("a")
        breaks(story, "deploy")

    def test_a_handler_may_be_stopped_for_other_reasons(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        (held,) = worker.take("a")
        story.fault("restart", "server-1", 2.0)
        worker.ack(credits=0)
        story.note(history.Finished, "worker-1", 0, job_id("a"), 1, "stopped")
        worker.ack(held, what="release")
        worker.close()
        Session(story, "worker-2").work("a")
        holds(story)


class TestHandlers:
    def test_a_handler_that_starts_twice(self, story: Story) -> None:
        story.publish("a")
        Session(story).work("a")
        story.note(history.Started, "worker-1", 0, job_id("a"), 1)
        breaks(story, "handlers")


def test_the_report_keeps_some_violations_and_counts_all(story: Story) -> None:
    story.publish(*(f"job {number}" for number in range(50)))
    report = story.report()
    assert report.counts == {"lost": 50}
    assert len(report.violations) == 20
    assert "lost: 30 more" in str(report)

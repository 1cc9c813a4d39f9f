"""Keys, limits, rates and pauses: each broken once in a history, and beside it what is nearly the same, and right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobwire_server.domain.queues import Policy
from tests.chaos.history import Rate, Rules
from tests.chaos.story import QUEUE, Session, Story, breaks, holds, job_id, killed

ONE_RUNS = [Policy.SINGLETON, Policy.STATELY, Policy.EXCLUSIVE, Policy.KEY_STRICT_FIFO]


def ruled(story: Story, **rules: object) -> Story:
    story.end.rules[QUEUE] = Rules(**rules)  # type: ignore[arg-type]
    return story


class TestKeys:
    @pytest.mark.parametrize("policy", ONE_RUNS)
    def test_two_jobs_of_a_key_run_at_once(self, story: Story, policy: Policy) -> None:
        ruled(story, policy=policy).publish("a", "b", key="k")
        worker = Session(story)
        (first,) = worker.take("a")
        story.wait(1)
        (second,) = worker.take("b")
        story.wait(1)
        worker.ack(first)
        worker.ack(second)
        breaks(story, "keys", *(["key order"] if policy is Policy.KEY_STRICT_FIFO else []))

    def test_no_key_is_a_key(self, story: Story) -> None:
        ruled(story, policy=Policy.SINGLETON).publish("a", "b")
        worker = Session(story)
        held = worker.take("a")
        story.wait(1)
        worker.ack(*held, *worker.take("b"))
        breaks(story, "keys")

    def test_the_next_run_of_a_job_that_gave_its_key_back_too_early(self, story: Story) -> None:
        ruled(story, policy=Policy.SINGLETON).publish("a", "b", key="k")
        worker = Session(story)
        (failing,) = worker.take("a")
        story.wait(1)
        (other,) = worker.take("b")
        story.wait(1)
        worker.ack(failing, what="fail")
        worker.ack(other)
        worker.work("a")
        breaks(story, "keys")

    def test_jobs_of_different_keys_and_of_other_policies(self, story: Story) -> None:
        ruled(story, policy=Policy.SINGLETON).publish("a", key="k")
        story.publish("b", key="l")
        worker = Session(story)
        worker.ack(*worker.take("a"), *worker.take("b"))
        ruled(story, policy=Policy.SINGLETON)
        holds(story)
        ruled(story, policy=Policy.SHORT).publish("c", "d", key="k")
        worker.ack(*worker.take("c"), *worker.take("d"))
        holds(story)

    def test_what_was_lost_without_a_word_may_have_ended_at_once(self, story: Story) -> None:
        ruled(story, policy=Policy.SINGLETON).publish("a", "b", key="k")
        lost = killed(story)
        Session(story, "worker-2").work("b")
        story.give_back(lost, lost=True)
        Session(story, "worker-2").work("a")
        holds(story)

    def test_an_extension_that_was_applied_shows_that_it_was_not_lost(self, story: Story) -> None:
        ruled(story, policy=Policy.SINGLETON).publish("a", "b", key="k")
        worker = Session(story)
        (held,) = worker.take("a")
        story.wait(1)
        other = Session(story, "worker-2")
        (second,) = other.take("b")
        story.wait(1)
        worker.ack(held, what="extend")
        other.ack(second)
        story.fault("kill", "worker-1")
        story.wait(15)
        story.give_back(held, lost=True)
        other.work("a")
        breaks(story, "keys")


class TestKeyOrder:
    def test_a_job_before_one_that_was_published_earlier(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", key="k")
        story.publish("b", key="k")
        worker = Session(story)
        worker.work("b")
        story.wait(1)
        worker.work("a")
        breaks(story, "key order")

    def test_a_job_before_one_that_stood_before_it_in_its_call(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", "b", key="k")
        worker = Session(story)
        worker.work("b")
        story.wait(1)
        worker.work("a")
        breaks(story, "key order")

    def test_a_job_during_the_retry_of_the_one_before_it(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", "b", key="k")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="fail")
        story.wait(1)
        worker.work("b")
        story.wait(1)
        worker.work("a")
        breaks(story, "key order")

    def test_a_job_behind_one_that_failed_for_good(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", "b", key="k")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="permanent")
        story.wait(1)
        worker.work("b")
        breaks(story, "key order")

    def test_a_job_that_waits_behind_one_that_failed_for_good(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", "b", key="k")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="permanent")
        story.rows[job_id("b")].state = "blocked"
        holds(story)
        assert story.report().held_up == 1

    def test_a_job_behind_one_that_was_cancelled(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", "b", key="k")
        story.cancel("a", "CANCELLED")
        story.wait(1)
        Session(story).work("b")
        holds(story)

    def test_jobs_that_were_on_their_way_side_by_side_have_no_order(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", answered=False, key="k")
        story.publish("b", key="k")
        story.publish("a", key="k")
        worker = Session(story)
        worker.work("b")
        story.wait(1)
        worker.work("a")
        holds(story)

    def test_priorities_change_nothing(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", key="k")
        story.publish("b", key="k", priority=5)
        worker = Session(story)
        worker.work("a")
        story.wait(1)
        worker.work("b")
        holds(story)


class TestLimits:
    def test_more_of_a_queue_than_may_run(self, story: Story) -> None:
        ruled(story, max_active=2).publish("a", "b", "c")
        worker = Session(story, credits=3)
        held = worker.take("a", "b")
        story.wait(1)
        worker.ack(*held, *worker.take("c"))
        breaks(story, "active")

    def test_as_many_as_may_run_one_after_the_other(self, story: Story) -> None:
        ruled(story, max_active=2).publish("a", "b", "c")
        worker = Session(story)
        first, second = worker.take("a", "b")
        worker.ack(first)
        story.wait(1)
        worker.ack(second, *worker.take("c"))
        holds(story)

    def test_more_of_a_group_than_may_run(self, story: Story) -> None:
        ruled(story, group_max_active=1, tiers={"gold": 2}).publish("a", "b", group="g")
        worker = Session(story)
        held = worker.take("a")
        story.wait(1)
        worker.ack(*held, *worker.take("b"))
        breaks(story, "group active")

    def test_more_of_a_tier_than_may_run(self, story: Story) -> None:
        ruled(story, group_max_active=1, tiers={"gold": 2}).publish("a", "b", "c", group="g", tier="gold")
        worker = Session(story, credits=3)
        held = worker.take("a", "b")
        story.wait(1)
        worker.ack(*held, *worker.take("c"))
        breaks(story, "group active")

    def test_groups_of_a_tier_and_none_and_jobs_without_a_group(self, story: Story) -> None:
        ruled(story, group_max_active=1, tiers={"gold": 2}).publish("a", "b", group="g", tier="gold")
        story.publish("c", group="h")
        story.publish("d", "e")
        worker = Session(story, credits=5)
        worker.ack(*worker.take("a", "b", "c", "d", "e"))
        holds(story)

    def test_a_group_without_a_limit(self, story: Story) -> None:
        ruled(story, tiers={"gold": 1}).publish("a", "b", group="g")
        worker = Session(story)
        worker.ack(*worker.take("a", "b"))
        holds(story)


class TestRates:
    def test_too_many_starts_within_a_period(self, story: Story) -> None:
        ruled(story, rate=Rate(2, 10.0)).publish("a", "b", "c")
        worker = Session(story)
        worker.work("a", "b")
        story.wait(9)
        worker.work("c")
        breaks(story, "rate")

    def test_a_second_run_is_a_start_too(self, story: Story) -> None:
        ruled(story, rate=Rate(1, 10.0)).publish("a")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="release")
        story.wait(9)
        worker.work("a")
        breaks(story, "rate")

    def test_starts_a_period_apart_that_arrive_together(self, story: Story) -> None:
        ruled(story, rate=Rate(1, 10.0)).publish("a", "b")
        worker = Session(story)
        first = worker.claim("a")
        story.fault("freeze", "worker-1", 10.0)
        second = worker.claim("b")
        worker.arrive(*first)
        worker.arrive(*second)
        worker.ack(*first, *second)
        holds(story)

    def test_too_many_starts_of_a_group(self, story: Story) -> None:
        ruled(story, group_rate=Rate(1, 10.0)).publish("a", "b", group="g")
        worker = Session(story)
        worker.work("a")
        story.wait(9)
        worker.work("b")
        breaks(story, "group rate")

    def test_groups_have_each_their_own(self, story: Story) -> None:
        ruled(story, group_rate=Rate(1, 10.0)).publish("a", group="g")
        story.publish("b", group="h")
        story.publish("c", "d")
        Session(story, credits=4).work("a", "b", "c", "d")
        holds(story)


class TestPaused:
    def test_a_claim_from_a_paused_queue(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        story.pause()
        story.wait(1)
        worker.work("a")
        story.wait(1)
        story.pause(paused=False)
        breaks(story, "paused")

    def test_a_claim_from_a_queue_that_was_never_resumed(self, story: Story) -> None:
        story.publish("a")
        story.pause()
        story.wait(1)
        Session(story).work("a")
        breaks(story, "paused")

    def test_a_claim_that_was_under_way(self, story: Story) -> None:
        story.publish("a")
        worker = Session(story)
        begun = story.t
        story.pause()
        story.wait(1)
        worker.work("a")
        story.end.claims[0] = replace(story.end.claims[0], begun=begun)
        holds(story)

    def test_what_was_claimed_before_arrives_and_runs(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        running, claimed = worker.take("a"), worker.claim("b")
        story.pause()
        story.wait(1)
        worker.arrive(*claimed)
        worker.ack(*running, *claimed)
        holds(story)

    def test_claims_before_and_after(self, story: Story) -> None:
        story.publish("a", "b")
        worker = Session(story)
        worker.work("a")
        story.wait(1)
        story.pause()
        story.wait(1)
        story.pause(paused=False)
        worker.work("b")
        holds(story)

    @pytest.mark.parametrize("answered", [True, False])
    def test_a_pause_that_failed_or_met_a_resume_tells_nothing(self, story: Story, answered: bool) -> None:
        story.publish("a")
        story.pause(paused=False, answered=False, who="operator-2")
        story.wait(1)
        story.pause(answered=answered)
        story.wait(1)
        Session(story).work("a")
        holds(story)


class TestGates:
    @pytest.mark.parametrize("table", ["slot", "blocked", "gate_event"])
    def test_what_is_left_of_a_finished_job(self, story: Story, table: str) -> None:
        story.publish("a")
        Session(story).work("a")
        story.end.left_behind.append((table, QUEUE, job_id("a")))
        breaks(story, "left behind")

    @pytest.mark.parametrize("policy", [Policy.SINGLETON, Policy.KEY_STRICT_FIFO])
    def test_a_job_that_waits_for_nobody(self, story: Story, policy: Policy) -> None:
        ruled(story, policy=policy).publish("a", "b", key="k")
        Session(story).work("a")
        story.rows[job_id("b")].state = "blocked"
        breaks(story, "stuck", "lost")

    def test_a_job_behind_another_key(self, story: Story) -> None:
        ruled(story, policy=Policy.KEY_STRICT_FIFO).publish("a", key="k")
        story.publish("b", key="l")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="permanent")
        story.rows[job_id("b")].state = "blocked"
        breaks(story, "stuck", "lost")

    def test_only_the_order_of_keys_holds_jobs_up(self, story: Story) -> None:
        ruled(story, policy=Policy.SINGLETON).publish("a", "b", key="k")
        worker = Session(story)
        worker.ack(*worker.take("a"), what="permanent")
        story.rows[job_id("b")].state = "blocked"
        breaks(story, "stuck", "lost")

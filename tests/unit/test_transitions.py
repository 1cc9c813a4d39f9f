"""The table of transitions: the page shows it, and it leaves no standing of a job without a way on."""

from __future__ import annotations

from jobwire_server.domain.jobs import FINISHED
from jobwire_server.domain.transitions import OVER, RUNNING, TABLE, WAITING, Again, Counts, Event, Facts, Standing
from tests.model.page import HEAD, PAGE, table


def test_the_page_shows_the_table() -> None:
    text = PAGE.read_text()
    assert text.count(HEAD) == 1
    assert table() in text, "put what `python -m tests.model --table` prints in the place of the table there"


def test_what_is_over_stays_so_unless_an_operator_decides() -> None:
    assert {Facts(standing).state for standing in OVER} == FINISHED
    for row in TABLE:
        if row.before & OVER:
            assert row.event in (Event.RETRY, Event.RESUME, Event.DELETE)
        assert row.before and not (row.before & OVER and row.before & RUNNING)


def test_from_every_standing_a_job_can_come_to_its_end() -> None:
    ways = {standing: set() for standing in Standing}
    for row in TABLE:
        for before in row.before:
            ways[before] |= set(WAITING) if row.after is Again.WAITS else {row.after}
    for standing in WAITING | RUNNING:
        reached = {standing}
        while (more := reached.union(*(ways[each] for each in reached))) != reached:
            reached = more
        assert reached >= OVER


def test_whatever_ends_a_lease_without_an_outcome_has_the_job_wait_again() -> None:
    for row in TABLE:
        if row.before <= RUNNING and row.after not in (OVER | RUNNING):
            assert row.after is Again.WAITS and row.counts.attempt == 0
        # Only a delivery is counted as one.
        assert (row.counts == Counts(attempt=1)) == (row.event is Event.CLAIM)

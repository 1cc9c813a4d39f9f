"""Reads the whole history of a run and says where a promise of docs/protocol.md did not hold.

The promises are about leases, not processes: who ran a job does not matter, but which delivery was valid when, and what
was said of it. A client does not know everything: a call without an answer may have been applied or not, and neither is
held against anybody. Each invariant has a module in `invariants/` that says what it allows and why.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.history import EndState, Event, Terms
from tests.chaos.invariants import answers, causes, counts, graces, in_flight, leases, order, outcomes
from tests.chaos.invariants.book import Book
from tests.chaos.invariants.report import Report


def check(events: Sequence[Event], end: EndState, terms: Terms) -> Report:
    """Checks a history, in the order of time, against the end state of its database."""
    book = Book(events, end, terms)
    report = Report()
    outcomes.check(book, report)
    leases.check(book, report)
    answers.check(book, report)
    in_flight.check(book, report)
    order.check(book, report)
    graces.check(book, causes.check(book, report), report)
    counts.check(book, report)
    return report

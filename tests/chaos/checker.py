"""Reads the whole history of a run and says where a promise of docs/protocol.md did not hold.

The promises are about leases, not processes: who ran a job does not matter, but which delivery was valid when, and what
was said of it. A client does not know everything: a call without an answer may have been applied or not, and neither is
held against anybody. Each invariant has a module in `invariants/` that says what it allows and why.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.chaos.history import EndState, Event, Terms
from tests.chaos.invariants import (
    answers,
    causes,
    counts,
    gates,
    graces,
    in_flight,
    keys,
    leases,
    limits,
    order,
    outcomes,
    pauses,
    rates,
)
from tests.chaos.invariants.book import Book
from tests.chaos.invariants.report import Report


def check(events: Sequence[Event], end: EndState, terms: Terms) -> Report:
    """Checks a history, in the order of time, against the end state of its database."""
    with _collector_at_rest():
        return _check(events, end, terms)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Millions of objects are made and all of them stay: looking for garbage among them takes longer than the check."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check(events: Sequence[Event], end: EndState, terms: Terms) -> Report:
    book = Book(events, end, terms)
    report = Report()
    outcomes.check(book, report)
    leases.check(book, report)
    answers.check(book, report)
    in_flight.check(book, report)
    order.check(book, report)
    keys.check(book, report)
    limits.check(book, report)
    rates.check(book, report)
    pauses.check(book, report)
    gates.check(book, report)
    graces.check(book, causes.check(book, report), report)
    counts.check(book, report)
    return report

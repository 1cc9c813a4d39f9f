"""Nothing is claimed from a queue that is paused.

A claim under way may still start what it took: held against it is only what its transaction must have seen, so it has
to have begun after the answer to PauseQueue and before the next ResumeQueue was sent. Where one of those was on its way
at the same time, or was never answered, nobody knows which came last.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from .book import Book
from .facts import SKEW, Order
from .report import Report

_LATE = 60.0
"""Seconds after which a call that was not answered does nothing any more, though a link that stood still held it."""


def check(book: Book, report: Report) -> None:
    """Invariant `paused`."""
    for queue, orders in book.pauses.items():
        spans = _paused(orders)
        for job in book.queues.get(queue, {}).values():
            for lease in job.leases:
                begun, claimed = lease.claim.begun, lease.claim.t
                since = next((start for start, end in spans if start + SKEW < begun and claimed < end - SKEW), None)
                if since is not None and not book.disturbances.undone(claimed):
                    message = f"claimed although the queue was paused since {since:.3f}"
                    report.add("paused", message, job=job.id, handle=lease.handle, t=claimed)


def _paused(orders: Sequence[Order]) -> list[tuple[float, float]]:
    """From when until when the queue was certainly paused."""
    resumes = [order for order in orders if not order.paused]
    spans = []
    for order in orders:
        if not order.paused or order.answered is None:
            continue
        before = [one for one in resumes if one.sent <= order.answered]
        if any((one.answered if one.answered is not None else one.sent + _LATE) > order.sent for one in before):
            continue
        spans.append((order.answered, min((one.sent for one in resumes if one.sent > order.answered), default=inf)))
    return spans

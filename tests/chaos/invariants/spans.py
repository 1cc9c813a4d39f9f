"""For how long a lease certainly held, and how many held at once.

It began with its claim, and ended with the job's outcome if it brought that: both by the database's clock, so one comes
after the other to the millisecond. Otherwise it did not end before the worker first said a word that was applied, nor
before an extension of it that was. A lease of which nothing applied is known may have been over at once: its delivery
may have come long after it was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from .book import Book
from .facts import SETTLED, SKEW, Lease


def held_until(lease: Lease) -> float:
    """Until when the lease certainly held."""
    if lease.won:
        assert lease.job.outcome is not None
        return lease.job.outcome.finished
    said = [one for one in lease.statements if one.settles]
    ends = [one.t - SKEW for one in lease.statements if not one.settles and one.status == "APPLIED"]
    if any(one.status in SETTLED for one in said):
        # Whichever of them it was, none took effect before the first was sent.
        ends.append(min(one.t for one in said) - SKEW)
    return max([lease.claim.t, *ends])


def beyond(book: Book, leases: Iterable[Lease], most: int) -> Iterator[tuple[Lease, int]]:
    """The leases that began while `most` others certainly held, and how many there were then."""
    ends: list[float] = []
    for lease in sorted(leases, key=lambda lease: lease.claim.t):
        begin, end = lease.claim.t, held_until(lease)
        if book.disturbances.undone(begin):
            continue
        while ends and ends[0] <= begin:
            heappop(ends)
        if len(ends) >= most:
            yield lease, len(ends) + 1
        heappush(ends, end)

"""Progress of a parse: what a stage may say, and how often.

A report is a call of `report(fraction, note)`; it may raise to stop the work (a cancelled job does), so no stage may
swallow what it raises. A stage counts from 0 to 1 for itself; `part` fits it into the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Report: TypeAlias = Callable[[float, str], None]
"""Takes the fraction done, 0 to 1, never falling, and a short note for a person."""


def part(report: Report, start: float, end: float) -> Report:
    """A report for a stage that takes the whole from `start` to `end`."""
    return lambda fraction, note: report(round(start + (end - start) * fraction, 3), note)


def report_tenths(report: Report, done: int, total: int, what: str) -> None:
    """Reports "row 400 of 4,000" when `done`, counted one by one, passes a tenth of `total`; else does nothing."""
    if done * 10 // total > (done - 1) * 10 // total:
        report(done / total, f"{what} {done:,} of {total:,}")

"""What a check of a history found: violations, of which not all are kept but all are counted, and the run's figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

SHOWN = 20
"""So many violations of one invariant are kept with their words; the rest are counted."""


@dataclass(slots=True)
class Violation:
    """One place in the history where an invariant does not hold. `t` as in the record."""

    invariant: str
    message: str
    job: str = ""
    handle: str = ""
    session: str = ""
    t: float = 0.0

    def __str__(self) -> str:
        names = (("job", self.job), ("handle", self.handle), ("session", self.session))
        where = " ".join(f"{name}={value}" for name, value in names if value)
        return f"{self.invariant} at {self.t:.3f}: {self.message} [{where}]"


@dataclass(slots=True)
class Report:
    """The result of a check. `counts` are violations by invariant, of which `violations` keeps the first of each."""

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    published: int = 0
    """Jobs that somebody tried to publish."""
    acknowledged: int = 0
    """Jobs of which a Publish call was answered."""
    outcomes: int = 0
    held_up: int = 0
    """Jobs without one that wait behind a job of their key which failed for good."""
    claims: int = 0
    """Leases ever given, delivered or not."""
    deliveries: int = 0
    lost: int = 0
    double_outcomes: int = 0
    stale_accepted: int = 0
    redeliveries: Counter[str] = field(default_factory=Counter)
    """Deliveries of jobs that had been delivered before, by why."""
    unexplained: int = 0
    retries_wrong: int = 0
    """Retries used up by what is not the handler's fault."""
    losses_wrong: int = 0
    """Losses counted against jobs whose worker suffered nothing."""
    gaps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By fault: seconds from the loss of a lease's owner to the job's next delivery."""

    @property
    def ok(self) -> bool:
        """Whether every invariant held."""
        return not self.counts

    def add(
        self, invariant: str, message: str, *, job: str = "", handle: str = "", session: str = "", t: float = 0.0
    ) -> None:
        """Notes a violation."""
        self.counts[invariant] += 1
        if self.counts[invariant] <= SHOWN:
            self.violations.append(Violation(invariant, message, job, handle, session, t))

    def __str__(self) -> str:
        lines = [str(violation) for violation in self.violations]
        lines += [
            f"{invariant}: {count - SHOWN} more" for invariant, count in sorted(self.counts.items()) if count > SHOWN
        ]
        return "\n".join(lines) or "every invariant held"

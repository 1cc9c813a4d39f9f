"""A promise of speed as a run has seen it, and the command that runs a scenario by itself.

Always holds: a finding is a ratio between two things measured in the same run, one ratio for each round; whether the
promise holds is told by their median, and the spread is shown with it.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.arena import postgres, table

COUNTED = {"shared_preload_libraries": "pg_stat_statements"}
"""Settings of a PostgreSQL that counts statements; without it a `Ledger` counts transactions."""


@dataclass(frozen=True)
class Finding:
    """One promise: `bound` is the least the median of `ratios` may be, or the most if not `at_least`.

    `facts` are figures behind it, for people; `note` says what is compared.
    """

    what: str
    ratios: Sequence[float]
    bound: float
    at_least: bool = True
    note: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.ratios)

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.median >= self.bound if self.at_least else self.median <= self.bound

    def row(self) -> tuple[str, str, str, str, str]:
        """As a line of `table(HEADS, …)`."""
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        promised = f"{'at least' if self.at_least else 'at most'} {self.bound:g}"
        return self.what, f"{self.median:.2f}", spread, promised, "holds" if self.holds else "DOES NOT HOLD"

    def as_json(self) -> Mapping[str, object]:
        """All of it, in plain types."""
        return {
            "what": self.what,
            "ratios": list(self.ratios),
            "median": self.median,
            "spread": [min(self.ratios), max(self.ratios)],
            "bound": self.bound,
            "at_least": self.at_least,
            "holds": self.holds,
            "note": self.note,
            "facts": dict(self.facts),
        }


HEADS = ("beyond the peers", "median", "spread", "promised", "")

Scenario = Callable[..., Awaitable[Sequence[Finding]]]
"""Takes a connection string and keyword arguments that all have defaults: numbers and switches."""


def show(findings: Sequence[Finding]) -> str:
    """The table, and what is behind each line of it."""
    parts = [table(HEADS, [finding.row() for finding in findings])]
    for finding in findings:
        facts = [f"- {name}: {text}" for name, text in finding.facts.items()]
        parts.append("\n".join([f"**{finding.what}**: {finding.note}", *facts]))
    return "\n\n".join(parts)


def command(scenario: Scenario, description: str | None) -> None:
    """Runs a scenario as a program: an option for each of its keyword arguments, and `--json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, parameter in inspect.signature(scenario).parameters.items():
        option, default = f"--{name.replace('_', '-')}", parameter.default
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true")
        elif default is not inspect.Parameter.empty:
            parser.add_argument(option, type=type(default), default=default, help=f"default {default:,}")
    parser.add_argument("--json", action="store_true")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    with postgres(COUNTED) as dsn:
        findings = asyncio.run(_gathered(scenario, dsn, given))
    print(json.dumps([finding.as_json() for finding in findings], indent=2) if as_json else show(findings))
    sys.exit(not all(finding.holds for finding in findings))


async def _gathered(scenario: Scenario, dsn: str, given: Mapping[str, object]) -> Sequence[Finding]:
    return await scenario(dsn, **given)


def progress(text: str) -> None:
    """Tells whoever waits; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)

"""The speed benchmark: `make bench`, and `make bench-peers` (see docs/benchmarks.md).

Jobwire from Python and from Node, plain SQL on the same tables and a bare gRPC server take turns; `--peers` adds other
job queues. What goes beyond them has switches of its own, each of which is run instead.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.arena import postgres
from bench.speed import finding, report
from bench.speed.ceiling import BEST_SHAPE
from bench.speed.contestants import from_node, our_own, peers
from bench.speed.finding import progress
from bench.speed.picture import picture
from bench.speed.results import Results
from bench.speed.rounds import best_ceiling, contest
from bench.speed.scenarios import SCENARIOS

_PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
_OTHER_NODE = "other Node client"
_BEYOND = {
    "depth": "a deep backlog, a future and a past against an empty database",
    "keys": "what claims and gates read beside a deep backlog and thousands of keys",
    "width": "a thousand queues and hundreds of streams against one of each",
    "pinned": "beside a transaction that stays open for minutes",
    "replicas": "two servers on one database against one",
}


def chosen(names: str, known: Sequence[str], what: str) -> Sequence[str]:
    """The names in a list with commas; all if it is empty."""
    given = [name.strip() for name in names.split(",") if name.strip()] or list(known)
    if unknown := sorted(set(given) - set(known)):
        sys.exit(f"there is no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return given


async def race(arguments: argparse.Namespace) -> Results:
    """The contest that the command line asks for."""
    names = chosen(arguments.scenario, [each.name for each in SCENARIOS], "scenario")
    scenarios = [each for each in SCENARIOS if each.name in names]
    others = peers(progress) if arguments.peers else []
    with postgres() as dsn:
        ceiling = arguments.ceiling
        if arguments.search_ceiling:
            ceiling = await best_ceiling(arguments.scale, dsn, progress)
            progress(f"the ceiling is at its best as {ceiling} (jobs a claim x loops)")
        before = [from_node(_OTHER_NODE, arguments.against.resolve())] if arguments.against else []
        everybody = [*our_own(ceiling), *before, *others]
        wanted = chosen(arguments.contestant, [one.name for one in everybody], "contestant")
        contestants = [one for one in everybody if one.name in wanted]
        return await contest(scenarios, contestants, arguments.rounds, arguments.scale, dsn, progress)


async def beyond(names: Sequence[str]) -> list[finding.Finding]:
    """What the scenarios of these names have found; `bench.speed.NAME` has the function NAME."""
    found: list[finding.Finding] = []
    with finding.counting_postgres() as dsn:
        for name in names:
            scenario: finding.Scenario = getattr(importlib.import_module(f"bench.speed.{name}"), name)
            found.extend(await scenario(dsn))
    return found


def main() -> None:
    """Measures, and tells of it; the exit code is 1 if a contestant failed, or a promise beyond the peers."""
    arguments = _parser().parse_args()
    data: Any
    if names := [name for name in _BEYOND if getattr(arguments, name)]:
        found = asyncio.run(beyond(names))
        text, data = finding.show(found), [each.as_json() for each in found]
        failed = not all(each.holds for each in found)
        drawing = ""
    else:
        results = asyncio.run(race(arguments))
        text, data = report.markdown(results), results.as_json()
        failed = any(each.error for each in results.measurements)
        drawing = picture(results)
    as_json = json.dumps(data, indent=2)
    print(as_json if str(arguments.json) == "-" else text)
    if arguments.json and str(arguments.json) != "-":
        arguments.json.write_text(as_json + "\n", "utf-8")
    if arguments.write_docs:
        report.write_docs(_PAGE, "beyond" if names else "contest", text, drawing)
    sys.exit(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=__doc__)
    parser.add_argument("--scenario", default="", help=f"some of {', '.join(each.name for each in SCENARIOS)}")
    parser.add_argument("--contestant", default="", help="some of those who take part, such as Jobwire,ceiling")
    parser.add_argument("--peers", action="store_true", help="other job queues too; the first time they are fetched")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help=f"its Node client too, as {_OTHER_NODE!r}")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual number of jobs")
    parser.add_argument(
        "--ceiling", default=BEST_SHAPE, metavar="BATCHxLOOPS", help=f"how plain SQL drains: {BEST_SHAPE}"
    )
    parser.add_argument("--search-ceiling", action="store_true", help="try several of these first, and take the best")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured; - prints it")
    parser.add_argument("--write-docs", action="store_true", help=f"put the results into {_PAGE.name}")
    for name, what in _BEYOND.items():
        parser.add_argument(f"--{name}", action="store_true", help=f"instead: {what}")
    return parser


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

"""The speed benchmark: `make bench`, and `make bench-peers` (see docs/benchmarks.md)."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
from rich.console import Console

from bench.arena import postgres
from bench.speed.contest import Contestant, ContestError, stage
from bench.speed.contestants import our_own
from bench.speed.report import quantity, show, write_docs
from bench.speed.results import Measurement, Results, machine
from bench.speed.scenarios import SCENARIOS, Scenario
from jobwire_server.cli.children import ChildError

_PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
_CEILINGS = ("250x2", "500x2", "500x4", "1000x1", "1000x2", "1000x4", "2000x2")

Tell = Callable[[str], None]


async def measure(scenario: Scenario, contestant: Contestant, number: int, jobs: int, dsn: str) -> Measurement:
    """One contestant in one scenario, once. What goes wrong is noted, and does not end the run."""
    facts = (scenario.name, contestant.name, number, jobs)
    try:
        async with stage(contestant, scenario, dsn) as place:
            figures = await scenario.play(place, jobs)
            cost = place.cost
        return Measurement(*facts, figures, cost)
    except (ContestError, ChildError, psycopg.Error) as error:
        return Measurement(*facts, {}, None, str(error))


async def contest(
    scenarios: Sequence[Scenario], contestants: Sequence[Contestant], rounds: int, scale: float, dsn: str, tell: Tell
) -> Results:
    """All rounds of all scenarios. In each round the next one of the contestants begins."""
    measurements: list[Measurement] = []
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            jobs = max(20, round(scenario.jobs * scale))
            taking_part = [one for one in contestants if one.kind in scenario.kinds and not one.absent]
            first = number % len(taking_part) if taking_part else 0
            for one in taking_part[first:] + taking_part[:first]:
                found = await measure(scenario, one, number, jobs, dsn)
                measurements.append(found)
                said = ", ".join(quantity(value, metric) for metric, value in found.figures.items())
                tell(f"round {number} of {rounds}: {scenario.title}: {one.name} {said or found.error}")
    return Results(machine(dsn), contestants, scenarios, measurements)


async def best_ceiling(scale: float, dsn: str, tell: Tell) -> str:
    """The shape of the ceiling's workers that drains fastest, of one run each."""
    [drain] = [each for each in SCENARIOS if each.name == "drain"]
    found: dict[str, float] = {}
    for shape in _CEILINGS:
        [ceiling] = [one for one in our_own(shape) if one.kind == "ceiling"]
        measured = await measure(drain, ceiling, 0, max(20, round(drain.jobs * scale)), dsn)
        found[shape] = measured.figures.get("rate", 0.0)
        tell(f"ceiling {shape}: {quantity(found[shape], 'rate')} {measured.error}")
    return max(found, key=found.__getitem__)


def chosen(names: str, known: Sequence[str], what: str) -> Sequence[str]:
    """The names in a list with commas; all if it is empty."""
    given = [name.strip() for name in names.split(",") if name.strip()] or list(known)
    if unknown := set(given) - set(known):
        sys.exit(f"there is no {what} {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return given


async def run(arguments: argparse.Namespace) -> Results:
    """Does what the command line says."""
    console = Console(stderr=True, highlight=False)

    def tell(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    names = chosen(arguments.scenario, [each.name for each in SCENARIOS], "scenario")
    scenarios = [each for each in SCENARIOS if each.name in names]
    with postgres() as dsn:
        ceiling = arguments.ceiling
        if arguments.search_ceiling:
            ceiling = await best_ceiling(arguments.scale, dsn, tell)
            tell(f"the ceiling's best: {ceiling} (jobs a claim x workers)")
        contestants = our_own(ceiling)
        wanted = chosen(arguments.contestant, [one.name for one in contestants], "contestant")
        contestants = [one for one in contestants if one.name in wanted]
        return await contest(scenarios, contestants, arguments.rounds, arguments.scale, dsn, tell)


def main() -> None:
    """Measures, and tells of it; the exit code is 1 if a contestant failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=__doc__)
    parser.add_argument("--scenario", default="", help=f"some of {', '.join(each.name for each in SCENARIOS)}")
    parser.add_argument("--contestant", default="", help="some of those who take part, such as Jobwire,ceiling")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual number of jobs")
    parser.add_argument("--ceiling", default="", metavar="BATCHxWORKERS", help="how the ceiling drains")
    parser.add_argument("--search-ceiling", action="store_true", help="try several of these first, and take the best")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured; - prints it")
    parser.add_argument("--write-docs", action="store_true", help=f"put results and picture into {_PAGE.name}")
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments))
    show(results, Console(width=None if sys.stdout.isatty() else 200, stderr=str(arguments.json) == "-"))
    if arguments.json:
        text = json.dumps(results.as_json(), indent=2)
        if str(arguments.json) == "-":
            print(text)
        else:
            arguments.json.write_text(text + "\n", "utf-8")
    if arguments.write_docs:
        write_docs(results, _PAGE)
    sys.exit(any(each.error for each in results.measurements))


if __name__ == "__main__":
    main()

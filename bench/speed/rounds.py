"""The rounds: each contestant in each scenario, interleaved, so that what changes on the machine changes for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg

from bench.speed.contest import Contestant, ContestError, stage
from bench.speed.contestants import our_own
from bench.speed.report import quantity
from bench.speed.results import Measurement, Results, machine
from bench.speed.scenarios import SCENARIOS, Scenario
from jobwire_server.cli.children import ChildError

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

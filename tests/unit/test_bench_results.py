"""What the speed benchmark makes of what it has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.speed.contest import JOBWIRE, NODE, Contestant, Cost, Kind
from bench.speed.contestants import from_node
from bench.speed.picture import picture
from bench.speed.report import markdown
from bench.speed.results import Measurement, Results
from bench.speed.scenarios import SCENARIOS, Scenario

NAMES: Sequence[tuple[str, Kind]] = (
    (JOBWIRE, "jobwire"),
    (NODE, "jobwire"),
    ("ceiling", "ceiling"),
    ("pg-boss", "queue"),
    ("River", "queue"),
    ("pgmq", "messages"),
)
MACHINE = {
    "cores": 2,
    "memory_gib": 8,
    "system": "x",
    "postgresql": "18",
    "fsync": "on",
    "synchronous_commit": "on",
    "python": "3",
    "grpcio": "1",
}


def scenario(name: str) -> Scenario:
    [found] = [each for each in SCENARIOS if each.name == name]
    return found


def results(of: Scenario, metric: str, rounds: Sequence[Mapping[str, float]], *more: Contestant) -> Results:
    """A run in which contestants had these figures in each round."""
    cost = Cost(2.0, {"PostgreSQL": 0.5}, {"PostgreSQL": 64.0}, 500_000, 1.0)
    measurements = [
        Measurement(of.name, name, number, 1_000, {metric: figure}, cost)
        for number, figures in enumerate(rounds, 1)
        for name, figure in figures.items()
    ]
    return Results(MACHINE, [*(Contestant(*each) for each in NAMES), *more], [of], measurements)


def test_ratios_are_taken_within_each_round_and_over_the_best_of_it() -> None:
    drain = scenario("drain")
    rounds = [
        {"Jobwire": 200.0, "pg-boss": 100.0, "River": 50.0, "pgmq": 900.0},
        {"Jobwire": 30.0, "pg-boss": 10.0, "River": 20.0, "pgmq": 900.0},
        {"Jobwire": 1_000.0, "pg-boss": 100.0, "River": 10.0, "pgmq": 900.0},
    ]
    ratio = results(drain, "rate", rounds).ratio(drain, ["queue"], "rate")
    assert ratio is not None
    assert (ratio.least, ratio.median, ratio.most) == (1.5, 2.0, 10.0)


def test_of_latencies_the_least_is_the_best() -> None:
    latency = scenario("latency")
    ratio = results(latency, "p50", [{"Jobwire": 4.0, "pg-boss": 5.0, "River": 2.0}]).ratio(latency, ["queue"], "p50")
    assert ratio is not None and ratio.median == 2.0


def test_a_target_holds_or_not_or_was_not_measured() -> None:
    drain = scenario("drain")
    verdicts = results(drain, "rate", [{"Jobwire": 150.0, "pg-boss": 100.0}]).verdicts(drain)
    assert [(each.target.degree, each.target.bound, each.word) for each in verdicts] == [
        ("must", 1.2, "holds"),
        ("aim", 1.6, "does not hold"),
        ("aim", 0.6, "not measured"),
    ]


def test_a_round_in_which_the_other_failed_is_left_out() -> None:
    drain = scenario("drain")
    rounds = [{"Jobwire": 150.0, "pg-boss": 100.0}, {"Jobwire": 700.0}]
    ratio = results(drain, "rate", rounds).ratio(drain, ["pg-boss"], "rate")
    assert ratio is not None and (ratio.least, ratio.most) == (1.5, 1.5)


def test_costs_are_told_for_so_many_jobs() -> None:
    drain = scenario("drain")
    costs = results(drain, "rate", [{"Jobwire": 150.0}]).costs(drain, "Jobwire")
    assert costs == {"cpu PostgreSQL": 50.0, "memory PostgreSQL": 64.0, "wal": 500.0}


def test_who_is_not_there_is_reported_without_what_belongs_to_the_machine() -> None:
    drain = scenario("drain")
    absent = Contestant("Graphile Worker", "queue", absent="npm failed")
    run = results(drain, "rate", [{"Jobwire": 150.0}], absent)
    broken = Measurement("drain", "River", 1, 10, {}, None, "the driver of River ended; its log ends with\n secret")
    text = markdown(Results(run.machine, run.contestants, run.scenarios, [*run.measurements, broken]))
    assert "- Graphile Worker is not there: npm failed" in text
    assert "- River, drain, round 1: the driver of River ended\n" in f"{text}\n"
    assert "secret" not in text


def test_from_node_there_is_a_ratio_to_everybody_else() -> None:
    drain = scenario("drain")
    run = results(drain, "rate", [{"Jobwire": 150.0, "Jobwire (Node)": 120.0, "pg-boss": 100.0}])
    figures = markdown(run).partition("### Figures")[2].partition("###")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in figures.splitlines() if line]
    assert {who: ratios for _, who, _, _, *ratios in rows[2:]} == {
        "Jobwire": ["", "", "0.80", "0.80 to 0.80"],
        "Jobwire (Node)": ["1.25", "1.25 to 1.25", "", ""],
        "pg-boss": ["1.50", "1.50 to 1.50", "1.20", "1.20 to 1.20"],
    }


def test_without_the_node_client_its_column_is_away() -> None:
    drain = scenario("drain")
    assert f"{NODE}'s over it" not in markdown(results(drain, "rate", [{"Jobwire": 150.0, "pg-boss": 100.0}]))


def test_a_node_client_that_is_not_built_is_absent_with_what_to_do(tmp_path: Path) -> None:
    absent = from_node(NODE, tmp_path).absent
    assert absent.endswith("make client-node")
    run = results(scenario("drain"), "rate", [{"Jobwire": 150.0}], Contestant(NODE, "jobwire", absent=absent))
    assert f"- {NODE} is not there: {absent}" in markdown(run)


def test_the_picture_has_a_bar_for_each_other_contestant() -> None:
    drain = scenario("drain")
    drawn = picture(results(drain, "rate", [{"Jobwire": 150.0, "pg-boss": 100.0, "ceiling": 300.0}]))
    assert [text for text in ("1.50 x", "0.50 x", ">pg-boss<", ">ceiling<", ">River<") if text in drawn] == [
        "1.50 x",
        "0.50 x",
        ">pg-boss<",
        ">ceiling<",
    ]

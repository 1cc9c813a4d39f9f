"""A run's results for people, as tables in Markdown that can be read as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.arena import table
from bench.speed.contest import JOBWIRE, NODE
from bench.speed.results import PER, Results, Spread, Verdict
from bench.speed.scenarios import Scenario

_ROOT = Path(__file__).parents[2]

Rows = Iterator[Sequence[str]]

_FIGURES = ("scenario", "who", "median", "least to most")
_TARGETS = ("scenario", "", "Jobwire's figure over that of", "is to be", "median", "least to most", "")
_PROCESSES = ("server", "producer", "worker", "PostgreSQL")
_CPU = ("scenario", "who", *_PROCESSES, "together", "WAL bytes a job")
_MEMORY = ("scenario", "who", *_PROCESSES)
_KINDS = {"queue": "the best job queue", "ceiling": "the ceiling", "echo": "the echo server"}


def markdown(results: Results) -> str:
    """All of it but the picture."""
    parts = [_facts(results)]
    figures = (*_FIGURES, *(head for name in _compared(results) for head in (f"{name}'s over it", "least to most")))
    tables = (
        ("Targets", _TARGETS, _targets),
        ("Figures", figures, _figures),
        (f"CPU seconds per {PER:,} jobs, and WAL", _CPU, _cpu),
        ("The most memory held, in MiB", _MEMORY, _memory),
    )
    for title, heads, rows_of in tables:
        rows = [row for each in results.scenarios for row in _titled_once(rows_of(results, each))]
        parts.append(f"### {title}\n\n{table(heads, rows)}")
    if errors := results.errors():
        parts.append("### What could not be measured\n\n" + "\n".join(f"- {_brief(each)}" for each in errors))
    return "\n\n".join(parts)


def write_docs(page: Path, place: str, text: str, drawing: str) -> None:
    """Puts `text` between the marks of this `place` of `page`; a drawing goes beside the page, under its name."""
    begin, end = f"<!-- {place}: begin -->", f"<!-- {place}: end -->"
    before, found_begin, rest = page.read_text("utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{page} has no place for results: it needs the lines {begin} and {end}")
    if drawing:
        beside = page.with_suffix(".svg")
        beside.write_text(drawing, "utf-8")
        text = f"![How many times as fast as each other contestant Jobwire is]({beside.name})\n\n{text}"
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")


def quantity(value: float, metric: str) -> str:
    """A figure with its unit."""
    return f"{value:,.0f}/s" if metric == "rate" else f"{value:,.1f} ms"


def _facts(results: Results) -> str:
    where = results.machine
    versions = ", ".join(f"{one.name} {one.version}" for one in results.contestants if one.version)
    rounds = max((each.round for each in results.measurements), default=0)
    return (
        f"Measured in {rounds} rounds on {where['cores']} cores and {where['memory_gib']} GiB ({where['system']}); "
        f"PostgreSQL {where['postgresql']} with fsync {where['fsync']} and synchronous_commit "
        f"{where['synchronous_commit']}, Python {where['python']}, grpcio {where['grpcio']}"
        f"{versions and f'; {versions}'}. Other processes of the machine took {results.noise():.2f} cores meanwhile, "
        f"in the median."
    )


def _targets(results: Results, scenario: Scenario) -> Rows:
    for verdict in results.verdicts(scenario):
        yield _target(scenario, verdict)


def _target(scenario: Scenario, verdict: Verdict) -> Sequence[str]:
    target, ratio = verdict.target, verdict.ratio
    return (
        _title(scenario, target.metric),
        target.degree,
        " and ".join(_KINDS.get(one, one) for one in target.against),
        f"{target.relation} {target.bound:g}",
        _times(ratio),
        _span(ratio),
        verdict.word,
    )


def _figures(results: Results, scenario: Scenario) -> Rows:
    for metric in scenario.metrics:
        for contestant in results.present(scenario):
            if figure := results.spread(scenario, contestant.name, metric):
                yield (
                    _title(scenario, metric),
                    contestant.name,
                    quantity(figure.median, metric),
                    f"{quantity(figure.least, metric)} to {quantity(figure.most, metric)}",
                    *_ratios(results, scenario, contestant.name, metric),
                )


def _ratios(results: Results, scenario: Scenario, against: str, metric: str) -> Iterator[str]:
    """How those whose ratios are told compare with one contestant: cells, empty beside itself."""
    for name in _compared(results):
        ratio = None if name == against else results.ratio(scenario, [against], metric, of=name)
        yield _times(ratio)
        yield _span(ratio)


def _compared(results: Results) -> Sequence[str]:
    """Whose ratios to the others have columns of their own."""
    present = {one.name for scenario in results.scenarios for one in results.present(scenario)}
    return [name for name in (JOBWIRE, NODE) if name in present]


def _cpu(results: Results, scenario: Scenario) -> Rows:
    if "rate" not in scenario.metrics:
        return
    for contestant in results.present(scenario):
        costs = results.costs(scenario, contestant.name)
        cpu = [costs.get(f"cpu {name}") for name in _PROCESSES]
        together = sum(each for each in cpu if each is not None)
        yield (
            scenario.title,
            contestant.name,
            *(_number(each, 1) for each in (*cpu, together)),
            _number(costs.get("wal"), 0),
        )


def _memory(results: Results, scenario: Scenario) -> Rows:
    for contestant in results.present(scenario):
        costs = results.costs(scenario, contestant.name)
        yield (scenario.title, contestant.name, *(_number(costs.get(f"memory {name}"), 0) for name in _PROCESSES))


def _titled_once(rows: Rows) -> Rows:
    """The rows, each title only where it is new."""
    last = ""
    for title, *cells in rows:
        yield ("" if title == last else title, *cells)
        last = title


def _title(scenario: Scenario, metric: str) -> str:
    return scenario.title if metric == "rate" else f"{scenario.title}, {metric}"


def _brief(error: str) -> str:
    """What went wrong, without the log, whose paths and passwords belong to one machine."""
    return error.partition("; its log")[0].splitlines()[0].replace(str(_ROOT), ".")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _times(ratio: Spread | None) -> str:
    return f"{ratio.median:.2f}" if ratio else ""


def _span(ratio: Spread | None) -> str:
    return f"{ratio.least:.2f} to {ratio.most:.2f}" if ratio else ""

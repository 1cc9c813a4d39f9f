"""A run's results for people: in the terminal, and in Markdown for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.arena import table
from bench.speed.picture import picture
from bench.speed.results import Results, Spread, Verdict
from bench.speed.scenarios import Scenario

_BEGIN = "<!-- measured: begin -->"
_END = "<!-- measured: end -->"

Rows = Sequence[Sequence[str]]

_FIGURES = ("scenario", "who", "median", "spread", "Jobwire is at", "spread of that")
_TARGETS = ("scenario", "", "Jobwire's figure over that of", "is to be", "measured", "spread", "")
_COSTS = (
    "scenario",
    "who",
    "CPU s: server",
    "producer",
    "worker",
    "PostgreSQL",
    "all",
    "WAL bytes a job",
    "MiB: server",
    "producer",
    "worker",
    "PostgreSQL",
)


_KINDS = {"queue": "the best job queue", "ceiling": "the ceiling", "echo": "the echo server"}


def show(results: Results, console: Console) -> None:
    """Prints tables."""
    for title, heads, rows in _tables(results):
        shown = Table(title=title, title_justify="left")
        for head in heads:
            shown.add_column(head)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    for error in results.errors():
        console.print(error, style="red", markup=False, soft_wrap=True)


def write_docs(results: Results, page: Path) -> None:
    """Puts the results between the marks of `page`, and the picture beside it, as an SVG of its name."""
    text = page.read_text("utf-8")
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"{page} has no place for results: it needs the lines {_BEGIN} and {_END}")
    before, rest = text.split(_BEGIN, 1)
    drawing = page.with_suffix(".svg")
    drawing.write_text(picture(results), "utf-8")
    page.write_text(f"{before}{_BEGIN}\n\n{markdown(results, drawing.name)}\n{_END}{rest.split(_END, 1)[1]}", "utf-8")


def markdown(results: Results, drawing: str) -> str:
    """The results in Markdown, with the picture of that name."""
    where = results.machine
    facts = (
        f"Measured on {where['cores']} cores and {where['memory_gib']} GiB ({where['system']}), PostgreSQL "
        f"{where['postgresql']} with fsync {where['fsync']} and synchronous_commit {where['synchronous_commit']}, "
        f"Python {where['python']}, grpcio {where['grpcio']}."
    )
    parts = [
        facts,
        f"![How many times as fast as each Jobwire is]({drawing})",
    ]
    for title, heads, rows in _tables(results):
        parts.append(f"### {title}\n\n{table(heads, rows)}")
    if errors := results.errors():
        parts.append("### What could not be measured\n\n" + "\n".join(f"- {' '.join(e.split())}" for e in errors))
    return "\n\n".join(parts) + "\n"


def _tables(results: Results) -> Iterator[tuple[str, Sequence[str], Rows]]:
    yield "Figures", _FIGURES, [row for each in results.scenarios for row in _figures(results, each)]
    targets = [_target(each, one) for each in results.scenarios for one in results.verdicts(each)]
    yield "Targets", _TARGETS, targets
    costs = [row for each in results.scenarios if "rate" in each.metrics for row in _costs(results, each)]
    yield "Costs: CPU seconds per 100,000 jobs, WAL, and the most memory held", _COSTS, costs


def _figures(results: Results, scenario: Scenario) -> Iterator[Sequence[str]]:
    for contestant in results.present(scenario):
        for metric in scenario.metrics:
            figure = results.spread(scenario, contestant.name, metric)
            ratio = results.ratio(scenario, [contestant.name], metric) if contestant.name != "Jobwire" else None
            if figure is None:
                continue
            yield (
                scenario.title if metric == "rate" else f"{scenario.title}, {metric}",
                contestant.name,
                quantity(figure.median, metric),
                f"{quantity(figure.least, metric)} to {quantity(figure.most, metric)}",
                _times(ratio),
                _span(ratio),
            )


def _target(scenario: Scenario, verdict: Verdict) -> Sequence[str]:
    target = verdict.target
    against = " and ".join(_KINDS.get(one, one) for one in target.against)
    return (
        scenario.title if target.metric == "rate" else f"{scenario.title}, {target.metric}",
        target.degree,
        against,
        f"{target.relation} {target.bound:g}",
        _times(verdict.ratio),
        _span(verdict.ratio),
        verdict.word,
    )


def _costs(results: Results, scenario: Scenario) -> Iterator[Sequence[str]]:
    for contestant in results.present(scenario):
        costs = results.costs(scenario, contestant.name)
        processes = ("server", "producer", "worker", "PostgreSQL")
        cpu = [costs.get(f"cpu {name}") for name in processes]
        yield (
            scenario.title,
            contestant.name,
            *(_number(each, 1) for each in (*cpu, sum(filter(None, cpu)))),
            _number(costs.get("wal"), 0),
            *(_number(costs.get(f"memory {name}"), 0) for name in processes),
        )


def quantity(value: float, metric: str) -> str:
    """A figure with its unit."""
    return f"{value:,.0f}/s" if metric == "rate" else f"{value:,.1f} ms"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _times(ratio: Spread | None) -> str:
    return f"{ratio.median:.2f} x" if ratio else ""


def _span(ratio: Spread | None) -> str:
    return f"{ratio.least:.2f} to {ratio.most:.2f}" if ratio else ""

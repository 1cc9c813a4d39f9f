"""The results as a picture: for each scenario, how many times as fast as each other contestant Jobwire is.

An SVG of our own making, with nothing but rectangles, lines and text. The axis is logarithmic, so that twice and half
as fast are as far from the line of equality; the thin line through a bar is the spread over the rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from bench.speed.contest import Kind
from bench.speed.results import Results, Spread
from bench.speed.scenarios import Scenario

_WIDTH, _LEFT, _RIGHT = 920, 210, 130
_LEAST, _MOST = 0.1, 100.0
_BAR, _GAP, _HEAD, _TOP = 16, 5, 30, 46
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_COLOURS: dict[Kind, str] = {
    "queue": "#2f6f9f",
    "messages": "#8a8f98",
    "ceiling": "#c98a2b",
    "echo": "#7a5aa6",
    "jobwire": "#000000",
}
_STYLE = "font-family: system-ui, sans-serif; font-size: 12px"


def picture(results: Results) -> str:
    """The SVG's text."""
    lines, y = [], float(_TOP)
    for scenario in results.scenarios:
        bars = list(_bars(results, scenario))
        if not bars:
            continue
        lines.append(_text(16, y + 18, scenario.title, "start", bold=True))
        y += _HEAD
        for name, colour, faster in bars:
            lines.extend(_bar(y, name, colour, faster))
            y += _BAR + _GAP
        y += _GAP
    height = y + 12
    ticks = "\n".join(line for tick in _TICKS for line in _tick(tick, height))
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" style="{_STYLE}">\n'
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="white"/>\n'
        f"{_text(16, 20, 'Jobwire is so many times as fast as', 'start', bold=True)}\n{ticks}\n{body}\n</svg>\n"
    )


def _bars(results: Results, scenario: Scenario) -> Iterator[tuple[str, str, Spread]]:
    for contestant in results.present(scenario):
        if contestant.kind == "jobwire":
            continue
        metric = scenario.metrics[0]
        if ratio := results.ratio(scenario, [contestant.name], metric):
            # Of latencies, less is faster.
            faster = ratio if metric == "rate" else Spread(1 / ratio.median, 1 / ratio.most, 1 / ratio.least)
            yield contestant.name, _COLOURS[contestant.kind], faster


def _bar(y: float, name: str, colour: str, faster: Spread) -> Iterator[str]:
    start, end, middle = _x(1), _x(faster.median), y + _BAR / 2
    least, most = _x(faster.least), _x(faster.most)
    yield _text(_LEFT - 10, y + _BAR - 4, name, "end")
    yield (
        f'<rect x="{min(start, end):.1f}" y="{y:.1f}" width="{abs(end - start):.1f}" height="{_BAR}" fill="{colour}"/>'
    )
    yield f'<path d="M{least:.1f} {middle:.1f}H{most:.1f}" stroke="black" stroke-width="1"/>'
    yield _text(max(start, most) + 6, y + _BAR - 4, f"{faster.median:.2f} x", "start")


def _tick(value: float, height: float) -> Iterator[str]:
    x = _x(value)
    colour = "#444" if value == 1 else "#ddd"
    yield f'<path d="M{x:.1f} {_TOP - 4}V{height - 8:.1f}" stroke="{colour}" stroke-width="1"/>'
    yield _text(x, _TOP - 10, f"{value:g}", "middle")


def _x(value: float) -> float:
    share = math.log(min(max(value, _LEAST), _MOST) / _LEAST) / math.log(_MOST / _LEAST)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'

"""How spans, limits and rates are written on the command line, and how they are read back to people.

A span is `90`, `1.5s`, `200ms`, `1m`, `2h` or `7d`; a rate is a number and a span, `10/1m`; `none` takes a limit away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import typer

from jobwire import QueueInfo, QueueLimits, QueuePolicy, Rate
from jobwire_server.cli.output import span

_NONE = "none"
_SPAN = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h|d|)")
_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """A span of time, in seconds."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no span of time: write 90, 1.5s, 200ms, 1m, 2h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def limits_over(
    base: QueueLimits,
    *,
    max_active: str | None,
    rate: str | None,
    group_max_active: str | None,
    tiers: Sequence[str] | None,
    group_rate: str | None,
) -> QueueLimits | None:
    """`base` with what was said laid over it; None if nothing was."""
    if all(text is None for text in (max_active, rate, group_max_active, group_rate)) and not tiers:
        return None
    limits = base
    if max_active is not None:
        limits = replace(limits, max_active=_number(max_active, "--max-active"))
    if rate is not None:
        limits = replace(limits, rate=_rate(rate, "--rate"))
    if group_max_active is not None:
        limits = replace(limits, group_max_active=_number(group_max_active, "--group-max-active"))
    if tiers:
        limits = replace(limits, tier_max_active=_tiers(limits.tier_max_active, tiers))
    if group_rate is not None:
        limits = replace(limits, group_rate=_rate(group_rate, "--group-rate"))
    return limits


def _number(text: str, option: str) -> int | None:
    if text == _NONE:
        return None
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise typer.BadParameter(f"{text!r} is no number: write 5, or {_NONE}", param_hint=option)
    return int(text)


def _rate(text: str, option: str) -> Rate | None:
    if text == _NONE:
        return None
    starts, slash, period = text.partition("/")
    if not slash or not re.fullmatch(r"\s*-?\d{1,9}\s*", starts):
        hint = f"{text!r} is no rate: write how many in which time, such as 10/1m, or {_NONE}"
        raise typer.BadParameter(hint, param_hint=option)
    return Rate(int(starts), seconds(period))


def _tiers(known: Mapping[str, int], said: Sequence[str]) -> dict[str, int]:
    tiers = dict(known)
    for text in said:
        tier, equals, most = text.rpartition("=")
        if not (tier and equals):
            raise typer.BadParameter(f"{text!r} names no tier: write gold=5, or gold={_NONE}", param_hint="--tier")
        number = _number(most, "--tier")
        if number is None:
            tiers.pop(tier, None)
        else:
            tiers[tier] = number
    return tiers


def rules(queue: QueueInfo) -> list[str]:
    """What keeps jobs of a queue from starting at once, in words."""
    limits = queue.limits
    said = ["paused"] if queue.paused else []
    if queue.policy is not QueuePolicy.STANDARD:
        said.append(queue.policy)
    if limits.max_active is not None:
        said.append(f"{limits.max_active:,} active")
    if limits.rate is not None:
        said.append(_in_words(limits.rate))
    if limits.group_max_active is not None:
        said.append(f"{limits.group_max_active:,} active per group")
    said += [f"{most:,} active per {tier} group" for tier, most in sorted(limits.tier_max_active.items())]
    if limits.group_rate is not None:
        said.append(f"{_in_words(limits.group_rate)} per group")
    return [*said, "groups take turns"] if queue.fair else said


def _in_words(rate: Rate) -> str:
    return f"{rate.starts:,} starts in {span(rate.period)}"

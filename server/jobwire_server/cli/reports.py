"""What a command says beside its exit code: lines about its progress while it runs, and its output at the end."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobwire import Job
from jobwire.wire import MAX_DATA_BYTES

_PLAIN = re.compile(r"(-|[0-9]*\.?[0-9]+%?)(?:\s+(.*))?", re.DOTALL)
_KEYS = frozenset({"fraction", "note", "checkpoint", "extend"})


class Lines:
    """Cuts what arrives into lines and passes them on; a longer one than `limit` bytes comes in pieces."""

    def __init__(self, on_line: Callable[[str], None], limit: int) -> None:
        self._on_line = on_line
        self._limit = limit
        self._rest = b""

    def add(self, chunk: bytes) -> None:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > self._limit:
            whole.append(self._rest)
            self._rest = b""
        for line in whole:
            self._pass(line)

    def end(self) -> None:
        """Passes on a last line without its end."""
        self._pass(self._rest)
        self._rest = b""

    def _pass(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            self._on_line(text)


class Tail:
    """The end of what arrives, at most `limit` bytes of it."""

    def __init__(self, limit: int) -> None:
        self.cut = False
        """Whether something is missing before it."""
        self._limit = limit
        self._kept = bytearray()

    def add(self, chunk: bytes) -> None:
        self._kept += chunk
        if len(self._kept) > self._limit:
            del self._kept[: -self._limit]
            self.cut = True

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")


def output_of(stdout: Tail) -> Any:
    """The output that a command means: all that it printed, if that is JSON, else its last line, as JSON or as text."""
    text = stdout.text.strip()
    if not text:
        return None
    last = text[text.rfind("\n") + 1 :]
    for candidate in (last,) if stdout.cut else (text, last):
        try:
            return json.loads(candidate, parse_constant=_no_json)
        except (ValueError, RecursionError):
            continue
    return last


OUTPUT_BYTES = MAX_DATA_BYTES
"""How much of what a command prints is kept: more is no output anyway."""


@dataclass(frozen=True)
class Report:
    """One line about the progress of a run."""

    fraction: float | None = None
    note: str = ""
    extend: float | None = None
    """A new time limit, in seconds from now."""
    checkpoint: Any = None
    """What the next attempt is to know."""
    of_progress: bool = True
    """Whether it says something of the progress."""

    def pass_on(self, job: Job) -> None:
        """Says it of the job."""
        if self.of_progress:
            job.report(self.fraction, self.note, checkpoint=self.checkpoint)
        if self.extend is not None:
            job.extend(self.extend)


def parsed(line: str) -> Report:
    """`0.5 half of it`, `50% half of it`, `- still looking`, or a JSON object. Raises ValueError with what is wrong."""
    if line.startswith("{"):
        return _from_object(json.loads(line, parse_constant=_no_json))
    plain = _PLAIN.fullmatch(line)
    if plain is None:
        raise ValueError("it is neither a share with a note, such as `0.5 half of it`, nor a JSON object")
    share, note = plain[1], plain[2] or ""
    if share == "-":
        return Report(None, note)
    return Report(_share(float(share[:-1]) / 100 if share.endswith("%") else float(share)), note)


def _from_object(said: dict[str, Any]) -> Report:
    if unknown := said.keys() - _KEYS:
        raise ValueError(f"it knows no {', '.join(sorted(unknown))}, only {', '.join(sorted(_KEYS))}")
    fraction, extend, note = said.get("fraction"), said.get("extend"), said.get("note", "")
    return Report(
        None if fraction is None else _share(_number(fraction, "fraction")),
        note if isinstance(note, str) else json.dumps(note),
        None if extend is None else _number(extend, "extend"),
        said.get("checkpoint"),
        bool(said.keys() - {"extend"}),
    )


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is no number")
    return float(value)


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"the share {value:g} is not between 0 and 1")
    return value


def _no_json(text: str) -> float:
    raise ValueError(f"{text} is no JSON")

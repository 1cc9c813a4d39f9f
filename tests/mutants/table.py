"""What Jobwire promises, and how each promise is broken on purpose: `mutants.toml` as values, and as a page.

What it names is in the tree: each text to be replaced occurs once in its file, each test exists, and docs/promises.md
says the same. `faults` finds what is not so.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutants.toml")
PAGE = ROOT / "docs" / "promises.md"
HEAD = "| promise | tests that hold it | broken on purpose, to see them fail |"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break a promise: a text that is replaced in one file, and the tests that fail then, each of them."""

    name: str
    breaks: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def applied_to(self, root: Path) -> None:
        """Breaks the tree at `root`."""
        path = root / self.file
        path.write_text(path.read_text().replace(self.before, self.after))


@dataclass(frozen=True, slots=True)
class Promise:
    """A sentence, the mutants that break it, and all tests that hold it."""

    says: str
    tests: tuple[str, ...]
    mutants: tuple[Mutant, ...]


def load() -> list[Promise]:
    """The table."""
    return [_promise(entry) for entry in tomllib.loads(TABLE.read_text())["promise"]]


def _promise(entry: dict[str, object]) -> Promise:
    match entry:
        case {"says": str(says), "mutant": list(given), **rest} if rest.keys() <= {"tests"}:
            mutants = tuple(Mutant(**{**mutant, "tests": tuple(mutant["tests"])}) for mutant in given)
            named = [test for mutant in mutants for test in mutant.tests]
            return Promise(says, tuple(dict.fromkeys([*named, *rest.get("tests", ())])), mutants)  # type: ignore[misc]
    raise ValueError(f"not a promise: {entry}")


def page_table(promises: list[Promise]) -> str:
    """The table of docs/promises.md."""
    lines = [HEAD, "|---|---|---|"]
    for promise in promises:
        tests = "<br>".join(f"[{_sentence(test)}](../{test.partition('::')[0]})" for test in promise.tests)
        mutants = "<br>".join(f"`{mutant.name}`: {mutant.breaks}" for mutant in promise.mutants)
        lines.append(f"| {promise.says} | {tests} | {mutants} |")
    return "\n".join(lines) + "\n"


def _sentence(test: str) -> str:
    return test.partition("::test_")[2].replace("_", " ")


def faults(promises: list[Promise]) -> Iterator[str]:
    """What the table says that is not so."""
    mutants = [mutant for promise in promises for mutant in promise.mutants]
    names = [mutant.name for mutant in mutants]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name}: two mutants of one name"
    for mutant in mutants:
        count = (ROOT / mutant.file).read_text().count(mutant.before)
        if count != 1:
            yield f"{mutant.name}: its text occurs {count} times in {mutant.file}"
        if mutant.before == mutant.after or not mutant.tests:
            yield f"{mutant.name}: it breaks nothing, or names no test"
    for promise in promises:
        for test in promise.tests:
            file, _, name = test.partition("::")
            if name not in functions(file):
                yield f"{test}: no such test"
    if page_table(promises) not in PAGE.read_text():
        yield "docs/promises.md says something else: put `python -m tests.mutants --table` in the place of its table"


@cache
def functions(file: str) -> frozenset[str]:
    """The names of a file's functions; none if there is no such file."""
    path = ROOT / file
    nodes = ast.parse(path.read_text()).body if path.exists() else []
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

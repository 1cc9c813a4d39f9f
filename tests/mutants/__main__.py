"""Breaks each promise once, in a copy of the tree, and looks whether its tests notice: `python -m tests.mutants`.

First the tests have to pass on an unbroken copy. Then each mutant is tried on a copy of its own: it is caught if every
test that it names fails, while a job still goes its way (else it would be wreckage that any test notices). A test that
cannot be collected or set up does not count as failed, and a mutant that hangs is caught only by a test's own time
limit. Fails if one survives.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from .table import ROOT, Mutant, Promise, load, page_table

PARTS = ("clients/python", "server", "tests", "workers")
HEALTHY = {
    "clients": "tests/client/test_session.py::test_a_job_is_delivered_run_and_settled",
    "server": "tests/broker/test_delivery.py::test_a_job_goes_its_way",
}
"""The test that has to pass with a mutant of this part."""


class Verdict(StrEnum):
    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    UNFIT = "UNFIT"
    """It does not show anything: nothing works with it, a test could not be run, or the run had to be ended."""


@dataclass(frozen=True, slots=True)
class Run:
    """What became of the tests of one run of pytest: `ended` says if it came to its end, `output` what it printed."""

    passed: frozenset[str]
    failed: frozenset[str]
    ended: bool
    output: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant. `missed`: the tests that were to fail and did not."""

    name: str
    verdict: Verdict
    caught_by: list[str]
    missed: list[str]
    seconds: float
    why: tuple[str, ...] = ()


@contextmanager
def copy_of_the_tree() -> Iterator[Path]:
    """What the tests need, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="jobwire-mutant-", ignore_cleanup_errors=True) as folder:
        for part in PARTS:
            shutil.copytree(ROOT / part, Path(folder) / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        yield Path(folder)


def run_tests(root: Path, tests: Collection[str], within: float) -> Run:
    """Runs tests on the tree at `root`, whose packages come before the installed ones."""
    report = root / "report.xml"
    # An embedded PostgreSQL for each run: some tests read its log.
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "JOBWIRE_", "DATABASE_"))
    }
    env = kept | {
        "PYTHONPATH": os.pathsep.join(str(root / part) for part in ("clients/python", "server", "workers")),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    # A session of its own, so that all that it started can be ended with it.
    with subprocess.Popen(
        command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            return Run(frozenset(), frozenset(), False, f"not at its end after {within:.0f} s\n{end(process)}")
        except BaseException:
            end(process)
            raise
    if process.returncode not in (0, 1):
        return Run(frozenset(), frozenset(), False, output)
    passed, failed, unfit = set(), set(), set()
    for case in ET.parse(report).iter("testcase"):
        test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        kinds = {child.tag for child in case}
        (unfit if kinds & {"error", "skipped"} else failed if "failure" in kinds else passed).add(test)
    # Of a test with several parameters, one that fails is enough.
    return Run(frozenset(passed - failed - unfit), frozenset(failed), not (unfit - failed), output)


def end(process: subprocess.Popen[str]) -> str:
    """Has pytest put away what it started, or ends it if it does not; returns what it printed."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def try_out(mutant: Mutant, within: float) -> Result:
    """Breaks a copy of the tree and runs the mutant's tests on it."""
    begin = time.monotonic()
    healthy = HEALTHY[mutant.file.partition("/")[0]]
    with copy_of_the_tree() as root:
        mutant.applied_to(root)
        run = run_tests(root, (healthy, *mutant.tests), within)
    caught_by = [test for test in mutant.tests if test in run.failed]
    missed = [test for test in mutant.tests if test not in run.failed]
    seconds = round(time.monotonic() - begin, 1)
    if not run.ended:
        return Result(mutant.name, Verdict.UNFIT, caught_by, missed, seconds, (run.output[-2_000:],))
    if healthy not in run.passed:
        return Result(mutant.name, Verdict.UNFIT, caught_by, missed, seconds, ("no job goes its way any more",))
    return Result(mutant.name, Verdict.SURVIVED if missed else Verdict.CAUGHT, caught_by, missed, seconds)


def tell(text: str) -> None:
    """To the person at the terminal; the standard output is for what `--json` and `--table` print."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def line(result: Result) -> str:
    tests = ", ".join(test.partition("::")[2] for test in (result.missed or result.caught_by))
    by = f"{'not ' if result.missed else ''}by {tests}"
    return "\n".join([f"  {result.verdict:<9} {result.name:<34} {result.seconds:6.1f} s  {by}", *result.why])


def summary(promises: Sequence[Promise], results: Sequence[Result]) -> str:
    """How many mutants of each promise were caught."""
    caught = {result.name: result.verdict is Verdict.CAUGHT for result in results}
    lines = []
    for promise in promises:
        tried = [caught[mutant.name] for mutant in promise.mutants if mutant.name in caught]
        if tried:
            lines.append(
                f"  {sum(tried):>3} of {len(tried):<3} {textwrap.shorten(promise.says, 110, placeholder=' …')}"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="try these mutants alone")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at once (default 2)")
    parser.add_argument("--limit", type=float, default=300.0, metavar="SECONDS", help="for each mutant (default 300)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--table", action="store_true", help="print the table of docs/promises.md, and try nothing")
    said = parser.parse_args()
    promises = load()
    if said.table:
        sys.stdout.write(page_table(promises))
        return 0
    mutants = [mutant for promise in promises for mutant in promise.mutants]
    if said.only:
        unknown = set(said.only) - {mutant.name for mutant in mutants}
        if unknown:
            parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
        mutants = [mutant for mutant in mutants if mutant.name in said.only]
    if not unbroken_passes(mutants):
        return 1
    begin = time.monotonic()
    results = []
    with ThreadPoolExecutor(said.jobs) as pool:
        for result in pool.map(lambda mutant: try_out(mutant, said.limit), mutants):
            tell(line(result))
            results.append(result)
    if said.json:
        sys.stdout.write(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    count = Counter(result.verdict for result in results)
    tell(f"\nCaught, by promise:\n{summary(promises, results)}\n")
    tell(
        f"{len(results)} mutants in {time.monotonic() - begin:.0f} s: {count[Verdict.CAUGHT]} caught,"
        f" {count[Verdict.SURVIVED]} survived, {count[Verdict.UNFIT]} unfit"
    )
    return int(count[Verdict.CAUGHT] < len(results))


def unbroken_passes(mutants: Sequence[Mutant]) -> bool:
    """Whether all tests that are to fail pass on a tree that is whole."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    tell(f"{len(tests)} tests on an unbroken copy …")
    with copy_of_the_tree() as root:
        run = run_tests(root, [*HEALTHY.values(), *tests], within=1_800)
    if run.ended and not run.failed:
        return True
    tell(f"{run.output}\nThey have to pass before anything is broken.")
    return False


if __name__ == "__main__":
    sys.exit(main())

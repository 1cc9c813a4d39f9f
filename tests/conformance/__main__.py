"""`make conformance`: all scenarios with all clients that are built here, and the table of what each passes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conformance.clients import CLIENTS
from tests.conformance.playing import PROPERTY
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.table import FAILS, PAGE, Column, as_text, written_into

_HERE = Path(__file__).parent


class Results:
    """A plugin of pytest that keeps what became of each scenario of each client."""

    def __init__(self) -> None:
        self.columns: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take one: of a test, or of what comes before or after it."""
        client, scenario = _played(report.nodeid)
        if report.failed:
            self.columns[client][scenario] = FAILS
        elif report.when == "call" and report.passed:
            self.columns[client][scenario] = str(dict(report.user_properties)[PROPERTY])


def _played(nodeid: str) -> tuple[str, str]:
    """Client and scenario of a test `…[scenario-client]`; both may have dashes."""
    said = nodeid[nodeid.index("[") + 1 : -1]
    return next((name, said[: -len(name) - 1]) for name in CLIENTS if said.removesuffix(f"-{name}") in SCENARIOS)


def main() -> int:
    """Run, show, and write if that is wanted. 1 if a scenario failed."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help="only these, such as go; none: all")
    parser.add_argument("--json", action="store_true", help="the table as JSON on standard output")
    parser.add_argument(
        "--write", action="store_true", help=f"write the table into {PAGE.name}, unless a scenario failed"
    )
    parser.add_argument(
        "--storms", type=int, metavar="N", help="instead: N storms of each client, from the seed JOBWIRE_STORM_SEED on"
    )
    said = parser.parse_args()
    known = list(dict.fromkeys(client.language for client in CLIENTS.values()))
    if unknown := set(said.languages) - set(known):
        parser.error(f"there is no client for {', '.join(unknown)}; there are {', '.join(known)}")
    if said.storms:
        os.environ["JOBWIRE_STORMS"] = str(said.storms)
        wanted = " or ".join(f"{language}-" for language in said.languages)  # followed by the seed
        return int(pytest.main([str(_HERE / "test_storms.py"), "--no-header", "-k", wanted]))
    files = [str(_HERE / f"test_{language}.py") for language in said.languages or known]
    results = Results()
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(
            [*files, "--quiet", "--no-header", "--numprocesses", "3", "--dist", "loadfile", "--no-loadscope-reorder"],
            plugins=[results],
        )
    columns: dict[str, Column] = {name: results.columns[name] for name in CLIENTS if name in results.columns}
    print(json.dumps(columns, indent=2) if said.json else as_text(columns))
    if said.write and code == pytest.ExitCode.OK:
        PAGE.write_text(written_into(PAGE.read_text(), columns))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

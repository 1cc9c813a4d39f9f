"""`make chaos`: a run under faults, its table, and exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.rig import Graces
from tests.chaos.run import SHORT, Plan, run
from tests.chaos.table import as_dict, as_markdown, as_text


def main() -> int:
    # As Ctrl-C does, so that nothing that was started is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="draw the same faults and load as the run that printed it")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long faults are drawn (default 120)")
    parser.add_argument("--jobs", type=int, help="how many are published in that time (default: 150 a second)")
    parser.add_argument(
        "--only", default="", help="faults to draw, by name: 'kill', 'kill server', several with commas"
    )
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two faults, on average")
    parser.add_argument("--patient", action="store_true", help="with the default graces, not those of impatient tests")
    parser.add_argument("--long", action="store_true", help="patient, with 1,000,000 jobs in 30 minutes")
    parser.add_argument("--json", action="store_true", help="the table as JSON on standard output")
    parser.add_argument("--markdown", type=Path, help="write the table as Markdown into this file too")
    parser.add_argument("--keep", type=Path, help="keep logs, history and database in this folder")
    said = parser.parse_args()
    seed = said.seed if said.seed is not None else secrets.randbelow(1_000_000)
    seconds = 1_800.0 if said.long else said.seconds
    plan = Plan(
        seed=seed,
        servers=said.servers,
        workers=said.workers,
        seconds=seconds,
        jobs=said.jobs or (1_000_000 if said.long else round(150 * seconds)),
        pause=said.pause,
        graces=Graces() if said.long or said.patient else SHORT,
        only=frozenset(name.strip() for name in said.only.split(",") if name.strip()),
        concurrency=100 if said.long else 20,
    )
    with tempfile.TemporaryDirectory(prefix="jobwire-chaos-", ignore_cleanup_errors=True) as folder:
        place = said.keep or Path(folder) / "run"
        Path(folder).chmod(0o711)
        result = asyncio.run(run(plan, place, lambda line: print(line, file=sys.stderr, flush=True)))
    found = result.report, result.faults, result.recovery
    print(json.dumps({"seed": seed} | as_dict(*found), indent=2) if said.json else as_text(*found))
    for problem in result.problems:
        print(problem, file=sys.stderr)
    if said.markdown:
        said.markdown.write_text(as_markdown(*found))
    print(f"seed {seed}, {result.seconds:.0f} s", file=sys.stderr)
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Install requirements files into an environment, hashes checked, with a line of progress instead of pip's hundreds.

Usage: install PYTHON REQUIREMENTS...
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def main(python: str, *files: str) -> int:
    total = sum(len(re.findall(r"^[\w.-]+==", Path(file).read_text(), re.MULTILINE)) for file in files)
    requirements = [argument for file in files for argument in ("--requirement", file)]
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--require-hashes",
        *requirements,
    ]
    overwrite = "\r\033[K" if sys.stdout.isatty() else ""
    seen = 0
    print(f"Installing {total} pinned packages", flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if found := re.match(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)", line):
                seen += 1
                if overwrite:
                    print(f"{overwrite}  {seen}/{total} {found[1]}", end="", flush=True)
                elif seen % 20 == 0:
                    print(f"  {seen}/{total}", flush=True)
            elif line.startswith("Installing collected packages"):
                print(f"{overwrite}  unpacking", end="" if overwrite else "\n", flush=True)
    print(overwrite, end="", flush=True)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Fetches and builds the peers into a folder of their own: nothing of them is a dependency of Jobwire.

Versions are pinned here, in node/package.json and in river/go.mod. What cannot be had is said in plain words and leaves
the others alone. To install again is cheap, and brings the folder up to date with the drivers in this tree.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
DEFAULT_FOLDER = SOURCES.parents[2] / ".tools" / "peers"

_RIVER = "github.com/riverqueue/river"
_PGQUEUER = ("pgqueuer[asyncpg]==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0")
_PGMQ = ("pgmq==1.1.4", "asyncpg==0.32.0", "uvloop==0.23.0")
_LINES_OF_A_FAILURE = 4


class InstallError(Exception):
    """A peer cannot be had. The message says why and what to do."""


@dataclass(frozen=True)
class Installed:
    """The outcome for one peer: its `version`, or else why it is `missing`."""

    version: str = ""
    missing: str = ""


def node_in(folder: Path) -> Path:
    """Where the Node is that runs the peers installed into `folder`."""
    return folder / "node/node_modules/.bin/node"


def install(folder: Path = DEFAULT_FOLDER, *, say: Callable[[str], None] = print) -> dict[str, Installed]:
    """Install all peers into `folder`, telling `say` what goes on; return the outcome by the peer's name."""
    steps: dict[str, Callable[[Path], str]] = {
        "pg-boss": lambda folder: _install_node(folder, "pg-boss"),
        "Graphile Worker": lambda folder: _install_node(folder, "graphile-worker"),
        "pgqueuer": lambda folder: _install_python(folder, _PGQUEUER),
        "River": _build_river,
        "pgmq": lambda folder: _install_python(folder, _PGMQ),
    }
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = {}
    for name, step in steps.items():
        say(f"{name}: installing into {folder}")
        try:
            outcomes[name] = Installed(version=step(folder))
            say(f"{name}: {outcomes[name].version}")
        except InstallError as error:
            outcomes[name] = Installed(missing=str(error))
            say(f"{name}: MISSING: {error}")
    return outcomes


def _install_node(folder: Path, package: str) -> str:
    """Install all that package.json names, Node 22 among it, and our drivers beside it; return `package`'s version."""
    _need("npm", "install Node.js, any version that has npm; the Node 22 that runs the peers comes from npm")
    node = folder / "node"
    shutil.copytree(SOURCES / "node", node, dirs_exist_ok=True)  # modules are found from where the importing file is
    _run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", folder=node)
    _run(str(node_in(folder)), "--version", folder=node)
    manifest = json.loads((node / "node_modules" / package / "package.json").read_text())
    return str(manifest["version"])


def _install_python(folder: Path, requirements: Sequence[str]) -> str:
    """Install into an environment that the Python peers share; return the version of the first requirement."""
    python = folder / "python/bin/python"
    if not python.exists():
        _run(sys.executable, "-m", "venv", str(folder / "python"), folder=folder)
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements, folder=folder)
    return requirements[0].partition("==")[2]


def _build_river(folder: Path) -> str:
    _need("go", "install Go, 1.21 or newer")
    source = SOURCES / "river"
    _run("go", "build", "-o", str(folder / "river"), ".", folder=source)
    return _run("go", "list", "-m", "-f", "{{.Version}}", _RIVER, folder=source).strip().removeprefix("v")


def _need(program: str, what_to_do: str) -> None:
    if not shutil.which(program):
        raise InstallError(f"there is no {program} on PATH: {what_to_do}")


def _run(*command: str, folder: Path) -> str:
    """Run to the end and return what was printed. Raises InstallError with the last lines of what went wrong."""
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    except OSError as error:
        raise InstallError(f"{command[0]} does not start: {error}") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip() or error.stdout.strip()).splitlines()[-_LINES_OF_A_FAILURE:]
        raise InstallError(f"`{' '.join(command)}` failed in {folder}: {' / '.join(said)}") from error

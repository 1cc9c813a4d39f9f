"""Which clients there are: how their drivers are run, built, and what toolchain that takes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ.get("JOBWIRE_CONFORMANCE_ROOT") or Path(__file__).resolve().parents[2])
"""The tree whose clients are tried."""

FORMS = ("resuming", "thin")


@dataclass(frozen=True)
class Client:
    """A client in one of its forms."""

    language: str
    form: str
    run: Sequence[str]
    """How its driver is run; `{here}` stands for the folder of the language's client."""
    built: str
    """What there is in that folder once it is built."""
    tool: str = ""
    """The program without which it can be neither built nor run; empty: it is there, since this is Python."""

    @property
    def name(self) -> str:
        """For people, and for what cannot have spaces."""
        return self.language if self.form == "resuming" else f"{self.language}-{self.form}"

    @property
    def command(self) -> list[str]:
        """How to run its driver, from anywhere."""
        return [word.format(here=self.folder) for word in self.run]

    @property
    def folder(self) -> Path:
        """Where the language's client is."""
        return ROOT / "clients" / self.language

    @property
    def missing(self) -> str:
        """Why it cannot be run here; empty: it can."""
        if self.tool and shutil.which(self.tool) is None:
            return f"there is no {self.tool} on PATH"
        if not (self.folder / self.built).is_file():
            return f"clients/{self.language}/{self.built} is not built: make client-{self.language}"
        return ""


def _client(language: str, *run: str, built: str, tool: str = "", forms: Sequence[str] = FORMS) -> list[Client]:
    # The first form is what a driver is without arguments.
    return [Client(language, form, [*run, *([] if form == "resuming" else [form])], built, tool) for form in forms]


# Many short lives: what a JVM does to be fast after minutes is not worth its while here.
_JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
_CLASSES = "{here}/target/classes:{here}/target/test-classes:{here}/target/lib/*"

CLIENTS = {
    client.name: client
    for client in (
        *_client(
            "python", sys.executable, "{here}/conformance/driver.py", built="conformance/driver.py", forms=FORMS[:1]
        ),
        *_client(
            "node",
            "node",
            "{here}/build/conformance/driver.js",
            built="build/conformance/driver.js",
            tool="node",
            forms=FORMS[:1],
        ),
        *_client("go", "{here}/bin/conformance", built="bin/conformance", tool="go"),
        *_client(
            "java",
            "java",
            *_JVM,
            "-cp",
            _CLASSES,
            "conformance.Driver",
            built="target/test-classes/conformance/Driver.class",
            tool="java",
        ),
        *_client(
            "rust", "{here}/target/debug/examples/conformance", built="target/debug/examples/conformance", tool="cargo"
        ),
    )
}
"""By name, in the order of the table."""

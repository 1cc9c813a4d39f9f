"""Files that the server is given, such as secrets: read at the start, and again when somebody has replaced them.

Always holds: what cannot be used is never taken up. At the start it is an error; later the log says so, and what was
read before stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

Made = TypeVar("Made")

_LOOK_SECONDS = 1.0
_BYTES = 1024 * 1024

log = structlog.get_logger(__name__)


class UnusableFile(OSError):
    """A file that the server was given cannot be used; the message names its variable and says why."""


class GivenFiles(Generic[Made]):
    """What is made of some files together.

    Args:
        paths: the files, by the variable that names each.
        make: makes it of their contents, in that order; raises UnusableFile.
    """

    def __init__(self, paths: dict[str, Path], make: Callable[[Sequence[bytes]], Made]) -> None:
        self._paths = paths
        self._make = make
        # Certificates are asked for in threads of gRPC's.
        self._lock = threading.Lock()
        self._seen = self._look()
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self.made = make(self._read())
        """What was made last."""

    def renewed(self) -> bool:
        """Whether the files have changed since the last time and `made` is another one; looks once a second at most."""
        if time.monotonic() < self._next_look:
            return False
        with self._lock:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            if (seen := self._look()) == self._seen:
                return False
            self._seen = seen
            variables = ", ".join(self._paths)
            try:
                made = self._make(self._read())
            except UnusableFile as error:
                log.error("a file was replaced by one that cannot be used: the one before stays", error=str(error))  # noqa: TRY400
                return False
            if self._look() != seen:
                # In the middle of being replaced.
                self._seen = ()
                return False
            self.made = made
            log.info("a file was replaced, and is in use", file=variables)
            return True

    def _look(self) -> tuple[object, ...]:
        """What differs when a file was written, or another one put in its place."""
        return tuple(map(_look, self._paths.values()))

    def _read(self) -> list[bytes]:
        contents = []
        for variable, path in self._paths.items():
            try:
                with path.open("rb") as file:
                    content = file.read(_BYTES + 1)
            except OSError as error:
                raise UnusableFile(f"{variable}: cannot read {path}: {error.strerror or error}") from None
            if len(content) > _BYTES:
                raise UnusableFile(f"{variable}: {path} is larger than {_BYTES:,} bytes: is it the right file?")
            contents.append(content)
        return contents


def _look(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_ino, found.st_size

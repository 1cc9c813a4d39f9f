"""Running programs that refuse to be root, as PostgreSQL does, for a process that may be root.

Always true: no user is added, and no folder is opened to others but the one that the program is given for itself.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs programs as `user` and `group` (None: as ourselves), or as what `prefix` makes of us."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    def popen(
        self, program: Path | str, *arguments: Path | str, cwd: Path, log: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own: Ctrl-C is for the process that decides when it stops."""
        return subprocess.Popen(
            [*self.prefix, program, *arguments],
            cwd=cwd,
            # libpq's variables of the caller are meant for clients; some of them would also steer the server.
            env={name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=self.user,
            group=self.group,
            extra_groups=None if self.user is None else [],
        )

    def own(self, folder: Path) -> None:
        """As root, give the folder to whom the programs run as, with all in it; last time it may have been another."""
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.user or 0, self.group or 0, follow_symlinks=False)

    def reaches(self, program: Path, folder: Path) -> bool:
        """Say whether `program` can be executed and `folder` be written to."""
        script = '"$1" --version && cd "$2" && test -w .'
        probe = ("/bin/sh", "-c", script, "sh", program, folder)
        with contextlib.suppress(OSError):
            return self.popen(*probe, cwd=Path("/"), log=subprocess.DEVNULL).wait() == 0
        return False


def choose_runner(program: Path, folder: Path) -> Runner | None:
    """Find a way not to be root in which `program` can be executed and `folder`, its own, be written to.

    As root, the folder changes hands to the first that works; None if none does. Others run programs as themselves.
    """
    if os.geteuid() != 0:
        return Runner()
    for runner in _substitutes_for_root():
        os.chown(folder, runner.user or 0, runner.group or 0)
        if runner.reaches(program, folder):
            return runner
    return None


def _substitutes_for_root() -> Iterator[Runner]:
    with contextlib.suppress(KeyError):
        nobody = pwd.getpwnam("nobody")
        yield Runner(user=nobody.pw_uid, group=nobody.pw_gid)
    # Where a parent folder is closed to `nobody`: root still for the file system, another number to the program.
    yield Runner(prefix=("unshare", "--user", "--map-user=65534", "--map-group=65534"))

"""Who may call: the bearer tokens of JOBWIRE_TOKENS_FILE, one `NAME TOKEN` a line. A replaced file counts at once.

Always holds: of a token nothing is kept but its hash, and nothing is told; how long a check takes does not depend on
how much of a token is right.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from jobwire_server.api.given_files import GivenFiles, UnusableFile
from jobwire_server.domain.errors import Unauthenticated

_VARIABLE = "JOBWIRE_TOKENS_FILE"
_NAME = re.compile(r"[\w.@-]{1,63}", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]{16,1000}")


class Bearers:
    """The tokens of one file. Raises UnusableFile if that is none at the start."""

    def __init__(self, path: Path) -> None:
        def make(contents: Sequence[bytes]) -> tuple[tuple[bytes, str], ...]:
            return _names_by_hash(contents[0], path)

        self._files = GivenFiles({_VARIABLE: path}, make)

    def name_of(self, authorization: str | None) -> str:
        """The name of the token that a call's metadata `authorization` brings; raises Unauthenticated."""
        self._files.renewed()
        if not authorization:
            raise Unauthenticated(
                "this server wants a token with every call: send the metadata `authorization: Bearer TOKEN`"
                " (the command line reads JOBWIRE_TOKEN); whoever runs the server hands tokens out"
            )
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("the metadata `authorization` must be `Bearer TOKEN`; it has another form")
        given = sha256(token.strip().encode(errors="replace")).digest()
        found = ""
        for known, name in self._files.made:
            if hmac.compare_digest(given, known):
                found = name  # and on: an end here would tell how far down it stands
        if not found:
            raise Unauthenticated(
                "this server does not know the token: it may have been replaced; ask whoever runs the server for the"
                " one that is valid now"
            )
        return found


def _names_by_hash(content: bytes, path: Path) -> tuple[tuple[bytes, str], ...]:
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UnusableFile(f"{_VARIABLE}: {path} is no text") from None
    known: dict[bytes, str] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        at = f"{_VARIABLE}: line {number} of {path}"
        if len(words) != 2:
            raise UnusableFile(f"{at} must be `NAME TOKEN`, two words; it has {len(words)}")
        name, token = words
        if not _NAME.fullmatch(name):
            raise UnusableFile(f"{at}: the name must be 1 to 63 letters, digits, `_`, `.`, `@` or `-`")
        if not _TOKEN.fullmatch(token):
            rule = "must be 16 to 1,000 characters of plain ASCII; `openssl rand -hex 32` makes a good one"
            raise UnusableFile(f"{at}: the token of {name} {rule}")
        if known.setdefault(sha256(token.encode()).digest(), name) != name:
            raise UnusableFile(f"{at}: the token of {name} is that of another name already")
    if not known:
        raise UnusableFile(f"{_VARIABLE}: {path} has no token, so nobody could call")
    return tuple(known.items())

"""What a caller brings along: the token and the name that it calls by, as the metadata of each call.

Always holds: no token is in a text that is shown or logged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypedDict

import grpc

from jobwire.errors import Unauthenticated

Token: TypeAlias = str | Callable[[], str]
"""A token, or what returns the one that is valid now: it is asked before each call, so it should answer at once."""

Metadata: TypeAlias = tuple[tuple[str, str], ...]

_TOKEN = re.compile(r"[\x21-\x7e]+")


class Access(TypedDict):
    """How to speak to a server, as arguments of Client and Worker."""

    tls: grpc.ChannelCredentials | None
    token: str | None


def access_from_environment() -> Access:
    """Return what JOBWIRE_TOKEN and JOBWIRE_CA_FILE say, for `Client(target, **access_from_environment())`.

    JOBWIRE_CA_FILE is a PEM file with the certificates to trust; with it connections are encrypted.

    Raises:
        ValueError: the file cannot be read, or the token can be none; the message names the variable.
    """
    tls = None
    if path := os.environ.get("JOBWIRE_CA_FILE"):
        try:
            tls = grpc.ssl_channel_credentials(Path(path).read_bytes())
        except OSError as error:
            raise ValueError(f"JOBWIRE_CA_FILE: cannot read {path}: {error.strerror or error}") from None
    token = os.environ.get("JOBWIRE_TOKEN") or None
    try:
        call_metadata(token)
    except ValueError as error:
        raise ValueError(f"JOBWIRE_TOKEN: {error}") from None
    return {"tls": tls, "token": token}


def call_metadata(token: Token | None, actor: str | None = None) -> Callable[[], Metadata | None]:
    """Return what makes the metadata of a call.

    Args:
        token: what the server wants, if it wants one.
        actor: for whom calls are made.

    Raises:
        ValueError: this can be no token. What is returned raises Unauthenticated if a function yields none.
    """
    # Metadata is ASCII.
    fixed = () if actor is None else (("x-jobwire-actor", actor.encode("ascii", "replace").decode()),)
    if callable(token):
        return lambda: (*fixed, _authorization(_asked(token)))
    metadata = fixed if token is None else (*fixed, _authorization(token))
    return lambda: metadata or None


def _authorization(token: object) -> tuple[str, str]:
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ValueError("a token must be a word of plain ASCII, without blanks or ends of lines")
    return "authorization", f"Bearer {token}"


def _asked(token: Callable[[], str]) -> str:
    try:
        answer = token()
        _authorization(answer)
    except Exception as error:
        raise Unauthenticated(f"there is no token to call with: {type(error).__name__}: {error}") from error
    return answer

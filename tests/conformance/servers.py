"""The servers that all scenarios of a run share: two replicas, one that wants tokens, and one that speaks TLS.

A scenario that stops its server starts one of its own. All are on one schema, so each tells the truth about every job.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jobwire import Client
from tests.conformance.certificates import Authority
from tests.system.conftest import ServerProcess, replica

TOKEN = "conformance-token-of-a-good-length"
HOST = "localhost"
"""For which the certificate is."""

_GRACES = {"cancel_grace": 3, "renew_interval": 1}
"""So that nobody waits half a minute for a job that was told to stop."""


@dataclass(frozen=True)
class Trust:
    """PEM files: of the authority that signed the server's certificate, and of one that signed nothing here."""

    right: Path
    wrong: Path


class Servers:
    """Starts what is asked for, once, and stops all of it in the end."""

    def __init__(self, dsn: str, schema: str, folder: Path) -> None:
        self._dsn = dsn
        self._schema = schema
        self._folder = folder
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._tokens: ServerProcess | None = None
        self._tls: ServerProcess | None = None
        self.first: ServerProcess
        self.second: ServerProcess
        self.truth: Client
        """The suite's own client: what it says of a job is so."""

    async def __aenter__(self) -> Self:
        # One after the other: the first makes the schema.
        self.first = await self.start(self._stack)
        self.second = await self.start(self._stack)
        self.truth = await self._stack.enter_async_context(Client(self.first.address, timeout=30))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, stack: AsyncExitStack, **settings: object) -> ServerProcess:
        """A further replica, which is gone at the end of the stack."""
        log = self._folder / f"server-{next(self._numbers)}.log"
        process = replica(self._dsn, self._schema, log, **_GRACES | settings)
        await asyncio.to_thread(process.start)
        stack.callback(process.kill)
        return process

    async def with_tokens(self) -> ServerProcess:
        """One that takes nobody without TOKEN."""
        async with self._starting:
            if self._tokens is None:
                self._tokens = await self.start(self._stack, tokens_file=self._tokens_file())
            return self._tokens

    async def with_tls(self) -> ServerProcess:
        """One that speaks nothing but TLS, as HOST, and wants TOKEN too."""
        async with self._starting:
            if self._tls is None:
                authority = Authority("the authority of the conformance suite")
                key, certificate = authority.server(HOST)
                self._write("key.pem", key)
                self._write("certificate.pem", certificate)
                self._write("trusted.pem", authority.pem)
                self._write("other.pem", Authority("another authority").pem)
                self._tls = await self.start(
                    self._stack,
                    tls_cert=self._folder / "certificate.pem",
                    tls_key=self._folder / "key.pem",
                    tokens_file=self._tokens_file(),
                )
            return self._tls

    @property
    def trust(self) -> Trust:
        """For clients of the server with TLS."""
        return Trust(self._folder / "trusted.pem", self._folder / "other.pem")

    def _tokens_file(self) -> Path:
        return self._write("tokens", f"conformance {TOKEN}\n".encode())

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path

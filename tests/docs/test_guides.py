"""The pages that show Jobwire from a shell and from other languages do what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.docs.pages import REPOSITORY, Shell, page_shell

DOCS = REPOSITORY / "docs"


@pytest.fixture
async def shell(database_url: str, tmp_path: Path) -> AsyncIterator[Shell]:
    async with page_shell(database_url, tmp_path, free=("127.0.0.1:50052", "127.0.0.1:8081")) as shell:
        yield shell


@pytest.mark.timeout(600)
async def test_debugging(shell: Shell) -> None:
    await asyncio.to_thread(shell.play, (DOCS / "debugging.md").read_text())

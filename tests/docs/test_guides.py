"""The pages that show Jobwire from a shell and from other languages do what they say."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.docs.pages import REPOSITORY, blocks_of, page_shell, sections_of

DEBUGGING, CLIENTS = (REPOSITORY / "docs" / name for name in ("debugging.md", "clients.md"))
SECTIONS = {
    heading: text
    for heading, text in sections_of(CLIENTS.read_text()).items()
    if any(block.runs for block in blocks_of(text))
}
SECONDS = 900.0
"""How long a block may take that builds a client from nothing."""


@pytest.mark.timeout(600)
async def test_debugging(database_url: str, tmp_path: Path) -> None:
    async with page_shell(database_url, tmp_path, free=("127.0.0.1:50052", "127.0.0.1:8081")) as shell:
        await asyncio.to_thread(shell.play, DEBUGGING.read_text())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The sources as somebody has them who has built nothing, so that what other tests run is not built under them."""
    copy = tmp_path_factory.mktemp("checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "protos", "clients", "scripts"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    for name in (name for name in listed.split("\0") if (REPOSITORY / name).is_file()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy / name)
    yield copy
    # What is built is large, and pytest keeps folders for a while.
    shutil.rmtree(copy, ignore_errors=True)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("language", SECTIONS)
async def test_clients(language: str, checkout: Path, database_url: str, tmp_path: Path) -> None:
    folder, scratch = tmp_path / "letters", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    # Cargo builds for several at once, and what it has built for others need not be built again.
    place = REPOSITORY if language == "Rust" else checkout
    environment = {"JOBWIRE": str(place), "CARGO_TARGET_DIR": str(REPOSITORY / "clients/rust/target")}
    made = page_shell(
        database_url, folder, scratch=scratch, seconds=SECONDS, environment=environment, free=("127.0.0.1:50059",)
    )
    async with made as shell:
        await asyncio.to_thread(shell.play, SECTIONS[language])


@pytest.mark.parametrize("page", [DEBUGGING, CLIENTS], ids=lambda page: page.stem)
def test_nothing_is_shown_that_is_not_run(page: Path) -> None:
    text = page.read_text()
    fences = [token for token in MarkdownIt().parse(text) if token.type == "fence" and token.info != "text"]
    assert len(fences) == len(blocks_of(text))

"""The pages of docs/features do what they say: their blocks run in order against a server of the page's own.

- `sh` blocks run in one folder; variables that one sets, the next ones know. What is started in the background ends
  with the page. An exit code other than 0 fails the page.
- `python` blocks run as programs. One whose first line is the comment `# NAME.py` is written to that file instead.
- A `text` block right after one of these is the output that it must print; `…` stands for anything within a line, and
  a line of its own that is `…` for any lines. How many blanks there are does not count.
- JOBWIRE_SERVER names the server, as does 127.0.0.1:50051 in the text of a block, and DATABASE_URL its database.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from psycopg.conninfo import make_conninfo

from jobwire_server.app import running
from jobwire_server.settings import load_settings
from tests.conftest import Postgres

FEATURES = Path(__file__).parents[2] / "docs" / "features"
TABLE = FEATURES / "README.md"
PAGES = sorted(path.name for path in FEATURES.glob("*.md") if path != TABLE)

BLOCK_SECONDS = 60
LANGUAGES = ("sh", "python")
LOOKS_RUN = ("bash", "shell", "console", "py", "python3")


@dataclass(frozen=True)
class Block:
    """A piece of a page that runs, and what it must print (None: whatever)."""

    language: str
    code: str
    line: int
    output: str | None

    @property
    def file(self) -> str | None:
        """The file that it is written to instead of being run."""
        named = re.match(r"# ([\w-]+\.py)\n", self.code) if self.language == "python" else None
        return named[1] if named else None


def blocks_of(page: str) -> list[Block]:
    tokens = MarkdownIt().parse(page)
    blocks = []
    for index, token in enumerate(tokens):
        if token.type == "fence":
            assert token.info not in LOOKS_RUN, f"a block is {token.info!r}: only {' and '.join(LANGUAGES)} are run"
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            expected = after.content if after and after.type == "fence" and after.info == "text" else None
            if token.info in LANGUAGES:
                assert token.map is not None
                blocks.append(Block(token.info, token.content, token.map[0] + 1, expected))
    return blocks


def matches(printed: str, expected: str) -> bool:
    """Whether a block printed what the page says."""
    pattern = ""
    for line in expected.rstrip().splitlines():
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\\n]*?".join(re.escape(part) for part in plain(line).split("…")) + r"\n"
    return re.fullmatch(pattern, "".join(plain(line) + "\n" for line in printed.rstrip().splitlines())) is not None


def plain(line: str) -> str:
    return " ".join(line.split())


@dataclass
class Shell:
    """Runs blocks in a folder; what they leave running ends with it."""

    folder: Path
    environment: dict[str, str]
    groups: list[int] = field(default_factory=list)

    def run(self, block: Block) -> str:
        """Runs a block and returns what it printed; fails if it failed."""
        code = block.code.replace("127.0.0.1:50051", self.environment["JOBWIRE_SERVER"])
        if block.file is not None:
            (self.folder / block.file).write_text(code)
            return ""
        (self.folder / ".block").write_text(code)
        command = [sys.executable, ".block"]
        if block.language == "sh":
            keep = "set -aeu; test -e .variables && . ./.variables; . ./.block; export -p > .variables"
            command = ["sh", "-c", keep]
        # Files, not pipes: what runs on in the background holds them open.
        with (self.folder / ".stdout").open("wb") as stdout, (self.folder / ".stderr").open("ab") as stderr:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.groups.append(process.pid)
        code_of_exit = process.wait(BLOCK_SECONDS)
        printed = (self.folder / ".stdout").read_text(errors="replace")
        said = (self.folder / ".stderr").read_text(errors="replace")[-5000:]
        assert code_of_exit == 0, f"the block of line {block.line} ended with {code_of_exit}:\n{printed}\n{said}"
        return printed

    def end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for group in self.groups:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, number)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and any(alive(group) for group in self.groups):
                time.sleep(0.05)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"test_{secrets.token_hex(5)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield make_conninfo(postgres.dsn, dbname=name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture
async def shell(database_url: str, tmp_path: Path) -> AsyncIterator[Shell]:
    settings = load_settings(database_url=database_url, listen="127.0.0.1:0", http_listen="127.0.0.1:0", drain_linger=0)
    async with running(settings) as server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "JOBWIRE_SERVER": server.address,
            "DATABASE_URL": database_url,
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "TZ": "UTC",
        }
        shell = Shell(tmp_path, environment)
        try:
            yield shell
        finally:
            await asyncio.to_thread(shell.end)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PAGES)
async def test_a_page_does_what_it_says(name: str, shell: Shell) -> None:
    blocks = blocks_of((FEATURES / name).read_text())
    assert any(block.file is None for block in blocks), "nothing on this page is run"
    for block in blocks:
        printed = await asyncio.to_thread(shell.run, block)
        if block.output is not None and not matches(printed, block.output):
            pytest.fail(f"the block of line {block.line} printed\n{printed}\nbut the page says\n{block.output}")


def links_of_rows(page: str) -> list[list[str]]:
    """For each line of the page's tables, the files that it links."""

    def links(token: Token) -> list[str]:
        return [str(child.attrs["href"]) for child in token.children or () if child.type == "link_open"]

    rows: list[list[str]] = []
    for token in MarkdownIt().enable("table").parse(page):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "thead_close":
            rows.pop()
        elif token.type == "inline" and rows:
            rows[-1] += links(token)
    return rows


def anchors_of(page: str) -> set[str]:
    tokens = MarkdownIt().parse(page)
    headings = [tokens[index + 1].content for index, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_feature_has_its_page_and_every_page_its_features() -> None:
    rows = links_of_rows(TABLE.read_text())
    assert all(rows), "a line of the table links no page"
    linked = {link for row in rows for link in row}
    for link in linked:
        name, _, anchor = link.partition("#")
        assert name in PAGES, f"{name} is linked, but there is no such page"
        assert not anchor or anchor in anchors_of((FEATURES / name).read_text()), f"{link}: there is no such heading"
    assert {link.partition("#")[0] for link in linked} == set(PAGES), "a page is not in the table"


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("a\n", "a\n", True),
        ("a\n", "b\n", False),
        ("a\nb\n", "a\n", False),
        ("id 0190-ab done\n", "id … done\n", True),
        ("id 0190-ab done\n", "id … gone\n", False),
        ("a\nb\nc\nd\n", "a\n…\nd\n", True),
        ("a\nd\n", "a\n…\nd\n", True),
        ("a\nb\nc\n", "a\n…\nd\n", False),
        (" a.c   d  \n", "a.c d\n", True),
        ("abc\n", "a.c\n", False),
        ("", "", True),
    ],
)
def test_expected_output_is_compared_line_by_line(printed: str, expected: str, same: bool) -> None:
    assert matches(printed, expected) is same

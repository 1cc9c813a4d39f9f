"""Pages that do what they say: the blocks of a Markdown page are run in order, as a reader would run them.

- `sh` blocks run in one folder; variables that one sets, the next ones know. What is started in the background ends
  with the page. An exit code other than 0 fails the page.
- `python` blocks run as programs.
- A block of a language in `COMMENTS` whose first line is a comment with a bare file name is written to that file.
  With a path, it is an excerpt: what follows stands in that file of the repository, line by line; a comment that is
  `…` stands for any lines between. So what a page shows is what is built and run.
- A `text` block right after one that runs is the output that it must print; `…` stands for anything within a line, and
  a line of its own that is `…` for any lines. How many blanks there are does not count.
- Words after the language, as in `sh go`, name programs without which the block is left out.
- Addresses that the page names are replaced by those in use: see `Shell.replacements`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from jobwire_server.app import running
from jobwire_server.embedded import find_binaries
from jobwire_server.settings import load_settings

REPOSITORY = Path(__file__).parents[2]

BLOCK_SECONDS = 60.0
RUN = ("sh", "python")
COMMENTS = {
    "python": "#",
    "toml": "#",
    "yaml": "#",
    "ts": "//",
    "js": "//",
    "go": "//",
    "java": "//",
    "rust": "//",
}
"""Languages whose blocks may name a file, and how their comments begin."""

_LOOKS_RUN = ("bash", "shell", "console", "py", "python3", "typescript", "javascript", "golang", "rs")


@dataclass(frozen=True)
class Block:
    """A piece of a page that runs or stands in a file, and what it must print (None: whatever)."""

    language: str
    code: str
    line: int
    output: str | None = None
    needs: tuple[str, ...] = ()
    """Programs without which it cannot run."""

    @property
    def file(self) -> str | None:
        """The file that its first line names."""
        if (mark := COMMENTS.get(self.language)) is None:
            return None
        named = re.match(rf"{mark} ([\w@./-]+\.\w+)\n", self.code)
        return named[1] if named else None

    @property
    def is_excerpt(self) -> bool:
        """Whether it shows a file of the repository."""
        return self.file is not None and "/" in self.file

    @property
    def runs(self) -> bool:
        """Whether it is run as it stands."""
        return self.language in RUN and self.file is None


def sections_of(page: str) -> dict[str, str]:
    """The parts of a page by their headings of the second level, each with its lines where they were."""
    tokens = MarkdownIt().parse(page)
    lines = page.splitlines(keepends=True)
    begins = [
        (token.map[0], tokens[index + 1].content)
        for index, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == "h2" and token.map
    ]
    ends = [*(begin for begin, _ in begins[1:]), len(lines)]
    parts = zip(begins, ends, strict=True)
    return {heading: "\n" * begin + "".join(lines[begin:end]) for (begin, heading), end in parts}


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page that run or name a file; fails for those that a reader would think are run."""
    tokens = MarkdownIt().parse(page)
    blocks = []
    for index, token in enumerate(tokens):
        if token.type != "fence":
            continue
        assert token.map is not None
        language, *needs = token.info.split() or [""]
        line = token.map[0] + 1
        assert language not in _LOOKS_RUN, f"line {line}: a block is {language!r}; say {', '.join((*RUN, *COMMENTS))}"
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        expected = after.content if after and after.type == "fence" and after.info == "text" else None
        block = Block(language, token.content, line, expected, tuple(needs))
        if block.runs or block.file is not None:
            blocks.append(block)
    return blocks


def matches(printed: str, expected: str) -> bool:
    """Whether a block printed what the page says."""
    pattern = ""
    for line in expected.rstrip().splitlines():
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\\n]*?".join(re.escape(part) for part in _plain(line).split("…")) + r"\n"
    return re.fullmatch(pattern, "".join(_plain(line) + "\n" for line in printed.rstrip().splitlines())) is not None


def _plain(line: str) -> str:
    return " ".join(line.split())


def stands_in(excerpt: str, text: str) -> bool:
    """Whether an excerpt stands in a text: the same lines one after the other, moved to the left as one."""
    lines = text.splitlines()
    parts: list[list[str]] = [[]]
    for line in excerpt.strip("\n").splitlines():
        if re.fullmatch(r"(#|//) …", line.strip()):
            parts.append([])
        else:
            parts[-1].append(line.rstrip())
    at = 0
    for part in filter(None, parts):
        found = (start + len(part) for start in range(at, len(lines)) if _same(lines[start : start + len(part)], part))
        if (end := next(found, None)) is None:
            return False
        at = end
    return True


def _same(lines: list[str], part: list[str]) -> bool:
    moved = textwrap.dedent("\n".join(line.rstrip() for line in lines)).splitlines()
    return moved == textwrap.dedent("\n".join(part)).splitlines()


@dataclass
class Shell:
    """Runs blocks in a folder; what they leave running ends with it.

    `scratch` takes what is needed beside the blocks' own files; None: the folder, which is the test's own.
    """

    folder: Path
    environment: dict[str, str]
    replacements: dict[str, str] = field(default_factory=dict)
    """What stands in a page, and what is to stand there instead: the addresses of this run."""
    scratch: Path | None = None
    seconds: float = BLOCK_SECONDS
    """How long a block may take."""
    groups: list[int] = field(default_factory=list)

    def play(self, page: str) -> None:
        """Runs a page from its first to its last block; skips the test in the end if blocks were left out."""
        blocks = blocks_of(page)
        assert any(block.runs for block in blocks), "nothing on this page is run"
        left_out: dict[str, list[int]] = {}
        for block in blocks:
            if missing := self.missing(block):
                left_out.setdefault(", ".join(missing), []).append(block.line)
            else:
                self.check(block)
        if left_out:
            said = [f"{programs} (lines {', '.join(map(str, lines))})" for programs, lines in left_out.items()]
            pytest.skip(f"what could be run holds; left out, since not everything is here: {'; '.join(said)}")

    def missing(self, block: Block) -> list[str]:
        """The programs that a block needs and that are not here."""
        return [program for program in block.needs if shutil.which(program, path=self.environment["PATH"]) is None]

    def check(self, block: Block) -> None:
        """Runs a block, writes its file or finds it in its file; fails if that is not as the page says."""
        printed = self.run(block)
        if block.output is not None and not matches(printed, expected := self._replaced(block.output)):
            pytest.fail(f"the block of line {block.line} printed\n{printed}\nbut the page says\n{expected}")

    def run(self, block: Block) -> str:
        """Does the same, but for what it prints, which is returned."""
        if block.is_excerpt:
            _find(block)
            return ""
        code = self._replaced(block.code)
        if block.file is not None:
            (self.folder / block.file).write_text(code)
            return ""
        return self._run(block, code)

    def _replaced(self, text: str) -> str:
        for said, meant in self.replacements.items():
            text = text.replace(said, meant)
        return text

    def _run(self, block: Block, code: str) -> str:
        scratch = self.scratch or self.folder
        text, variables = scratch / ".block", scratch / ".variables"
        text.write_text(code)
        command = [sys.executable, str(text)]
        if block.language == "sh":
            keep = 'set -aeu; test -e "$2" && . "$2"; . "$1"; export -p > "$2"'
            command = ["sh", "-c", keep, "sh", str(text), str(variables)]
        # Files, not pipes: what runs on in the background holds them open.
        with (scratch / ".stdout").open("wb") as stdout, (scratch / ".stderr").open("ab") as stderr:
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
        code_of_exit = process.wait(self.seconds)
        printed = (scratch / ".stdout").read_text(errors="replace")
        said = (scratch / ".stderr").read_text(errors="replace")[-5000:]
        assert code_of_exit == 0, f"the block of line {block.line} ended with {code_of_exit}:\n{printed}\n{said}"
        return printed

    def end(self) -> None:
        """Ends what the blocks left running."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for group in self.groups:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, number)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and any(_alive(group) for group in self.groups):
                time.sleep(0.05)


def _find(block: Block) -> None:
    assert block.file is not None
    path = REPOSITORY / block.file
    assert path.is_file(), f"line {block.line} shows {block.file}, but there is no such file"
    _, _, excerpt = block.code.partition("\n")
    assert stands_in(excerpt, path.read_text()), f"what line {block.line} shows does not stand in {block.file}"


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def free_address(host: str = "127.0.0.1") -> str:
    """An address on which nothing listens now."""
    with socket.create_server((host, 0)) as listener:
        return f"{host}:{listener.getsockname()[1]}"


@asynccontextmanager
async def page_shell(
    database_url: str,
    folder: Path,
    *,
    scratch: Path | None = None,
    seconds: float = BLOCK_SECONDS,
    environment: Mapping[str, str] | None = None,
    free: Iterable[str] = (),
) -> AsyncIterator[Shell]:
    """A server of the page's own, and a shell whose blocks find it and its database.

    JOBWIRE_SERVER names the server, as do 127.0.0.1:50051 (gRPC) and 127.0.0.1:8080 (HTTP) in the text of a block, and
    DATABASE_URL its database. `free` are further addresses that the page names, for what it starts by itself.
    """
    settings = load_settings(database_url=database_url, listen="127.0.0.1:0", http_listen="127.0.0.1:0", drain_linger=0)
    async with running(settings) as server:
        known = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")} | {
            "PATH": f"{Path(sys.executable).parent}:{REPOSITORY / '.tools/bin'}:{os.environ['PATH']}:{find_binaries()}",
            "JOBWIRE_SERVER": server.address,
            "DATABASE_URL": database_url,
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "TZ": "UTC",
            **(environment or {}),
        }
        replacements = {"127.0.0.1:50051": server.address, "127.0.0.1:8080": server.http_address}
        replacements |= {address: free_address() for address in free}
        shell = Shell(folder, known, replacements, scratch, seconds)
        try:
            yield shell
        finally:
            await asyncio.to_thread(shell.end)

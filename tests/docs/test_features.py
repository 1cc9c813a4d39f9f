"""The pages of docs/features do what they say, each against a server of its own; the table names all of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.docs.pages import Shell

FEATURES = Path(__file__).parents[2] / "docs" / "features"
TABLE = FEATURES / "README.md"
PAGES = sorted(path.name for path in FEATURES.glob("*.md") if path != TABLE)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PAGES)
async def test_a_page_does_what_it_says(name: str, shell: Shell) -> None:
    await asyncio.to_thread(shell.play, (FEATURES / name).read_text())


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

"""A folder as storage, and the parser called on it as a request or a job would."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from obstore.store import ObjectStore

from jobwire_workers.excel_parse import ParseResult, parse_workbook, read_clean


@dataclass
class Desk:
    """A storage folder; `reports` collects the progress of all parses."""

    folder: Path
    store: ObjectStore
    reports: list[tuple[float, str]] = field(default_factory=list)

    def put(self, content: bytes, key: str = "book.xlsx") -> str:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return key

    def parse(self, content: bytes, key: str = "book.xlsx") -> ParseResult:
        return self.parse_key(self.put(content, key))

    def parse_key(self, key: str) -> ParseResult:
        return parse_workbook(self.store, key, self._report)

    def clean(self, content: bytes, key: str = "book.xlsx") -> pl.DataFrame:
        return read_clean(self.store, self.parse(content, key).clean_key)

    def _report(self, fraction: float, note: str) -> None:
        self.reports.append((fraction, note))

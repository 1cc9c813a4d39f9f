"""The clean data: one Parquet object beside its source, so that nobody parses the workbook again.

The clean key follows from the source's key alone and the bytes from the source's content alone, so a second run ends in
the same state, and a run over another's result replaces it in one step.
"""

from __future__ import annotations

import io

import polars as pl
from obstore.store import ObjectStore

from jobwire_workers.excel_parse.storage import checked_key, read_object, write_object

_SUFFIX = ".clean.parquet"
_MAX_BYTES = 2 * 1024**3


def clean_key(file_key: str) -> str:
    """Where the clean data of a source lies: "uploads/a.xlsx" gives "uploads/a.xlsx.clean.parquet"."""
    return file_key + _SUFFIX


def write_clean(store: ObjectStore, file_key: str, frame: pl.DataFrame) -> str:
    """Writes the frame beside its source, over any older one, and returns the clean key."""
    content = io.BytesIO()
    frame.write_parquet(content, compression="zstd")
    key = clean_key(file_key)
    write_object(store, key, content.getvalue())
    return key


def read_clean(store: ObjectStore, key: str) -> pl.DataFrame:
    """The clean data under a clean key, as a job's result names it. Raises InputError if there is none."""
    return pl.read_parquet(io.BytesIO(read_object(store, checked_key(key), _MAX_BYTES)))

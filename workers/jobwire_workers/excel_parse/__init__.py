"""Turns an uploaded workbook into clean Parquet beside it.

The core is `parse_workbook`: a plain function of a store and a key that knows nothing about queues. A web request calls
it directly for a small file; the handler (`handler.py`) calls it for a job. There is no second copy of the logic.
"""

from __future__ import annotations

from jobwire_workers.excel_parse.errors import InputError, StorageError
from jobwire_workers.excel_parse.parsing import parse_workbook
from jobwire_workers.excel_parse.result import ParseResult
from jobwire_workers.excel_parse.storage import open_store
from jobwire_workers.excel_parse.writing import clean_key, read_clean

__all__ = [
    "InputError",
    "ParseResult",
    "StorageError",
    "clean_key",
    "open_store",
    "parse_workbook",
    "read_clean",
]

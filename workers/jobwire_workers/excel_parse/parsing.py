"""The whole way of a workbook: read, parse, clean, write, describe.

Always holds: the end state depends only on the source object. A run that fails or is stopped anywhere leaves the older
clean data, or none; a second run gives the same bytes again.
"""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter

from obstore.store import ObjectStore

from jobwire_workers.excel_parse.cleaning import clean
from jobwire_workers.excel_parse.progress import Report, part
from jobwire_workers.excel_parse.reading import MAX_BYTES, read_sheet
from jobwire_workers.excel_parse.result import ParseResult, Seconds, describe
from jobwire_workers.excel_parse.storage import checked_key, read_object
from jobwire_workers.excel_parse.writing import write_clean


def parse_workbook(store: ObjectStore, file_key: str, report: Report) -> ParseResult:
    """Parses the workbook under `file_key`, writes its clean data beside it and says what is in it.

    `report(fraction, note)` is called about 25 times, with a fraction of 0 to 1 that never falls; what it raises stops
    the work. Blocks, and takes some seconds and some hundred MB for a large sheet.

    Raises InputError, in words for the uploader, if the key or the file is the reason and another try would not help;
    StorageError if it may.
    """
    key = checked_key(file_key)
    marks = [perf_counter()]
    report(0.0, "reading the file")
    content = read_object(store, key, MAX_BYTES)
    marks.append(perf_counter())
    sheet = read_sheet(content, part(report, 0.1, 0.6))
    marks.append(perf_counter())
    frame = clean(sheet.rows, part(report, 0.6, 0.9))
    marks.append(perf_counter())
    report(0.9, "writing the clean data")
    written = write_clean(store, key, frame)
    marks.append(perf_counter())
    report(1.0, f"{frame.height:,} rows, {frame.width:,} columns")
    return describe(frame, clean_key=written, sheet=sheet.name, seconds=_seconds(marks))


def _seconds(marks: list[float]) -> Seconds:
    stages = (later - earlier for earlier, later in pairwise(marks))
    return Seconds(*(round(stage, 4) for stage in (*stages, marks[-1] - marks[0])))

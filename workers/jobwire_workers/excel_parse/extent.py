"""How far a sheet reaches, before it is loaded.

The reader keeps a sheet as one dense block, and a block that does not fit into memory ends the whole process. A single
stray value in cell XFD1048576, in a file of 5 KB, asks for 550 GB. So a sheet that says it is huge is looked through
first; that is slow, but then few sheets say so. (One that lies about it still ends only the process it is parsed in.)
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from typing import IO
from xml.etree import ElementTree as ET

from jobwire_workers.excel_parse.errors import InputError
from jobwire_workers.excel_parse.sniffing import damaged

MAX_CELLS = 20_000_000
"""Most cells between A1 and the last value of a sheet, filled or not; filled, it takes about 3.5 GB of memory."""

_DIMENSION = re.compile(rb"<(?:\w+:)?dimension\s[^>]*ref=\"(?:[A-Z]+\d+:)?([A-Z]+\d+)\"")
_CELL = re.compile(r"([A-Z]{1,3})(\d{1,7})")


def require_bounded(content: bytes) -> None:
    """Raises InputError if a sheet of this .xlsx spans more than MAX_CELLS or is damaged. Any other zip file passes."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                if name.startswith("xl/worksheets/") and name.endswith(".xml"):
                    _require_bounded_sheet(archive, name)
    except (zipfile.BadZipFile, zlib.error, ET.ParseError, EOFError, ValueError, RuntimeError) as error:
        raise damaged(str(error)) from error


def _require_bounded_sheet(archive: zipfile.ZipFile, name: str) -> None:
    with archive.open(name) as head:
        claim = _DIMENSION.search(head.read(4096))
    if claim and math.prod(_place(claim[1].decode())) > MAX_CELLS:
        with archive.open(name) as sheet:
            _look_through(sheet)


def _look_through(sheet: IO[bytes]) -> None:
    """Walks the sheet's values, since a claim may rest on cells that are only formatted, which take no room."""
    last_row = last_column = 0
    for _, element in ET.iterparse(sheet):  # noqa: S314  (expat itself stops at entities that grow)
        tag = element.tag.rpartition("}")[2]
        if tag == "c" and len(element):
            row, column = _place(element.get("r", ""))
            last_row, last_column = max(last_row, row), max(last_column, column)
            if last_row * last_column > MAX_CELLS:
                raise InputError(
                    f"A sheet reaches to row {last_row:,} and column {last_column:,}, more than {MAX_CELLS:,} cells. "
                    "Often that is one stray value far from the data: delete the rows below and the columns right of "
                    "the data and upload it again, or split the sheet."
                )
        if tag == "row":
            element.clear()


def _place(cell: str) -> tuple[int, int]:
    """Row and column of a cell's name, from 1: "C7" gives (7, 3). A cell without a name counts for nothing."""
    if not (match := _CELL.fullmatch(cell)):
        return 0, 0
    column = 0
    for letter in match[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return int(match[2]), column

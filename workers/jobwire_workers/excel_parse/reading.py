"""From the bytes of a workbook to the tidied cells of its first sheet that has any.

Reads .xlsx, .xlsm, .xls and .ods. Whatever is wrong with the file comes out as InputError, in words for the
person who uploaded it; nothing that a file holds raises anything else.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
    WorksheetNotFound,
)

from jobwire_workers.excel_parse.cells import Value, tidy
from jobwire_workers.excel_parse.errors import InputError
from jobwire_workers.excel_parse.extent import require_bounded
from jobwire_workers.excel_parse.progress import Report, part, report_tenths
from jobwire_workers.excel_parse.sniffing import ENCRYPTED, damaged, require_workbook

_LOADED = 0.6
"""Loading a sheet is one call of the parser that takes about this part of the time and cannot be looked into."""

MAX_BYTES = 512 * 1024**2
"""Largest workbook that is read, in bytes of the file."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet; its rows are all of one length and begin with the first one that holds a value."""

    name: str
    rows: list[list[Value]]


def read_sheet(content: bytes, report: Report) -> Sheet:
    """The first visible worksheet that holds a value; hidden sheets, charts and macros are passed over.

    Raises InputError if the content is no workbook, is encrypted or damaged, spans too many cells or has no such sheet.
    """
    require_workbook(content)
    if zipfile.is_zipfile(io.BytesIO(content)):
        require_bounded(content)
    with _damage_explained(), CalamineWorkbook.from_filelike(io.BytesIO(content)) as workbook:
        names = [
            sheet.name
            for sheet in workbook.sheets_metadata
            if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible
        ]
        for name in names:
            report(0.0, f"loading sheet {name!r}")
            if rows := _rows(workbook.get_sheet_by_name(name), part(report, _LOADED, 1.0)):
                return Sheet(name, rows)
    if names:
        raise InputError(f"The workbook has no data: {_listed(names)} empty. Was it saved before it was filled in?")
    raise InputError("The workbook has no visible worksheet, so there is nothing to read.")


def _rows(sheet: CalamineSheet, report: Report) -> list[list[Value]]:
    """The tidied rows from the first one that holds a value; empty if none does."""
    if sheet.end is None:
        return []
    last_row, _ = sheet.end  # counted from 0, as `number` is not
    rows: list[list[Value]] = []
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        row = [tidy(cell) for cell in cells]
        if rows or any(value is not None for value in row):
            rows.append(row)
            report_tenths(report, number, last_row + 1, "row")
    return rows


def _listed(names: list[str]) -> str:
    return f"the sheet {names[0]!r} is" if len(names) == 1 else f"all its {len(names)} visible sheets are"


@contextmanager
def _damage_explained() -> Iterator[None]:
    """Only what the parser itself raises: a report inside may raise too, and that is not the file's fault."""
    try:
        yield
    except PasswordError:
        raise InputError(ENCRYPTED) from None
    except WorksheetNotFound as error:
        raise damaged(f"the sheet {str(error)!r} is listed but missing") from error
    except CalamineError as error:
        raise damaged(str(error)) from error
    except BaseException as error:
        # How the parser's own bugs on broken input surface; the class is not to be imported from anywhere.
        if type(error).__name__ != "PanicException":
            raise
        raise damaged() from error

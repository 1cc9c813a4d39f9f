"""Workbooks for the tests, whole and broken, all made by real writers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

import xlsxwriter  # type: ignore[import-untyped]
import xlwt  # type: ignore[import-untyped]
from msoffcrypto.format.ooxml import OOXMLFile  # type: ignore[import-untyped]

_FORMATS = {datetime: "yyyy-mm-dd hh:mm:ss", date: "yyyy-mm-dd", time: "hh:mm:ss", timedelta: "[h]:mm:ss"}

Rows = Sequence[Sequence[Any]]


def xlsx(rows: Rows = (), *, last_cell: object = None, **more_sheets: Rows) -> bytes:
    """A workbook whose first sheet is called Sheet1; a sheet whose name begins with `hidden` is hidden.

    `last_cell` goes into the last cell of Sheet1 that there can be, XFD1048576; "" only formats it.
    """
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        book.set_properties({"created": datetime(2024, 1, 1)})  # noqa: DTZ001  (the writer wants it naive)
        formats = {kind: book.add_format({"num_format": text}) for kind, text in _FORMATS.items()}
        for name, cells in {"Sheet1": rows, **more_sheets}.items():
            sheet = book.add_worksheet(name)
            if name.startswith("hidden"):
                sheet.hide()
            for row, values in enumerate(cells):
                for column, value in enumerate(values):
                    _write(sheet, row, column, value, formats.get(type(value)))
        if last_cell is not None:
            bold = book.add_format({"bold": True})
            book.get_worksheet_by_name("Sheet1").write(1_048_575, 16_383, last_cell, bold)
    return content.getvalue()


def xls(rows: Rows) -> bytes:
    """A workbook of Excel 97."""
    content = io.BytesIO()
    book = xlwt.Workbook()
    sheet = book.add_sheet("Sheet1")
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            sheet.write(row, column, value)
    book.save(content)
    return content.getvalue()


def _write(sheet: Any, row: int, column: int, value: Any, cell_format: Any) -> None:
    if isinstance(value, str):
        sheet.write_string(row, column, value)
    elif cell_format is not None:
        sheet.write_datetime(row, column, value, cell_format)
    elif value is not None:
        sheet.write(row, column, value)


def encrypted(workbook: bytes, password: str = "secret") -> bytes:
    """The workbook as a spreadsheet program saves it with a password."""
    content = io.BytesIO()
    OOXMLFile(io.BytesIO(workbook)).encrypt(password, content)
    return content.getvalue()


def zipped(**files: bytes) -> bytes:
    """A zip archive that is no workbook, with files at the paths given (as keyword arguments)."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def with_part(workbook: bytes, part: str, change: Callable[[bytes], bytes | None]) -> bytes:
    """The workbook with one of its parts changed, or left out if `change` gives None; the zip itself stays sound."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook)) as old, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as new:
        assert part in old.namelist()
        for entry in old.infolist():
            data: bytes | None = old.read(entry)
            if entry.filename == part:
                data = change(old.read(entry))
            if data is not None:
                new.writestr(entry, data)
    return content.getvalue()


def ods(rows: Rows) -> bytes:
    """An OpenDocument spreadsheet of text cells."""
    table = "".join(
        "<table:table-row>"
        + "".join(
            f'<table:table-cell office:value-type="string"><text:p>{cell}</text:p></table:table-cell>' for cell in row
        )
        + "</table:table-row>"
        for row in rows
    )
    office = "urn:oasis:names:tc:opendocument:xmlns:"
    content = (
        f'<office:document-content xmlns:office="{office}office:1.0" xmlns:table="{office}table:1.0" '
        f'xmlns:text="{office}text:1.0" office:version="1.2"><office:body><office:spreadsheet>'
        f'<table:table table:name="Sheet1">{table}</table:table>'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    mimetype = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = (
        f'<manifest:manifest xmlns:manifest="{office}manifest:1.0">'
        f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{mimetype}"/></manifest:manifest>'
    )
    return zipped(
        **{"mimetype": mimetype.encode(), "content.xml": content.encode(), "META-INF/manifest.xml": manifest.encode()}
    )

"""Files that cannot be parsed: each is refused for good, in words that tell its owner what to do."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobwire_workers.excel_parse import InputError
from tests.workers.desk import Desk
from tests.workers.workbooks import Rows, encrypted, with_part, xls, xlsx, zipped

ROWS: Rows = [["Name", "Age"], *([f"person {number}", number] for number in range(50))]
BOOK = xlsx(ROWS)
SHEET = "xl/worksheets/sheet1.xml"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def patched(book: bytes, place: int, byte: int) -> bytes:
    return book[:place] + bytes([byte]) + book[place + 1 :]


def overwritten(book: bytes, part: str) -> bytes:
    """The workbook with zeros over some of the compressed bytes of a part."""
    start = book.index(part.encode()) + len(part) + 100
    return book[:start] + bytes(20) + book[start + 20 :]


NO_WORKBOOK = {
    "text": (b"just some words\n", "plain text, perhaps CSV"),
    "csv": ("\ufeffa,b\r\n1,2\r\n".encode(), "plain text, perhaps CSV"),
    "web page": (b"\r\n<HTML><table><tr><td>1</td></tr></table>", "a web page, which some programs export"),
    "picture": (PNG, "a picture (PNG)"),
    "pdf": (b"%PDF-1.7\n", "a PDF document"),
    "parquet": (b"PAR1", "a Parquet file"),
    "zip": (zipped(**{"notes.txt": b"hello"}), "a zip archive"),
    "empty zip": (zipped(), "a zip archive"),
    "word": (zipped(**{"[Content_Types].xml": b"<Types/>", "word/document.xml": b"<w/>"}), "a Word document"),
    "bytes": (bytes(range(256)), "a file of an unknown kind"),
}


@pytest.mark.parametrize("kind", NO_WORKBOOK)
def test_a_file_that_is_no_workbook_is_called_what_it_is(desk: Desk, kind: str) -> None:
    content, name = NO_WORKBOOK[kind]
    with pytest.raises(InputError) as refusal:
        desk.parse(content)
    assert str(refusal.value).startswith(f"The file is not a workbook but {name}")
    assert "save it as .xlsx" in str(refusal.value)


def test_an_old_office_file_that_is_no_workbook(desk: Desk) -> None:
    document = xls([["a"]]).replace("Workbook".encode("utf-16-le"), "Document".encode("utf-16-le"))
    with pytest.raises(InputError, match="an old Office file but not a workbook"):
        desk.parse(document)


def test_an_empty_file(desk: Desk) -> None:
    with pytest.raises(InputError, match=r"The file is empty \(0 bytes\)"):
        desk.parse(b"")


def test_an_encrypted_workbook(desk: Desk) -> None:
    with pytest.raises(InputError, match=r"protected by a password, so it cannot be read\. Remove the password"):
        desk.parse(encrypted(BOOK))


def test_a_missing_file(desk: Desk) -> None:
    desk.put(BOOK, "folder/book.xlsx")
    for key in ("other.xlsx", "folder"):
        with pytest.raises(InputError, match=f"There is no file '{key}' in the storage"):
            desk.parse_key(key)


DAMAGED: dict[str, Callable[[], bytes]] = {
    "half a zip": lambda: half(BOOK),
    "zip without its last bytes": lambda: BOOK[:-30],
    "half an old workbook": lambda: half(xls(ROWS)),
    "old workbook that ends after its header": lambda: xls(ROWS)[:512],
    "old workbook without its last bytes": lambda: xls(ROWS)[:-64],
    "zip whose table of contents lies elsewhere": lambda: patched(BOOK, BOOK.rindex(b"PK\x05\x06") + 17, 0x7F),
    "zip with an encrypted sheet": lambda: patched(BOOK, BOOK.rindex(SHEET.encode()) - 46 + 8, 0x01),
    "huge sheet that breaks off": lambda: with_part(xlsx(ROWS, last_cell=""), SHEET, half),
    "sheet that breaks off": lambda: with_part(BOOK, SHEET, half),
    "sheet of broken XML": lambda: with_part(BOOK, SHEET, lambda _: b"<worksheet><sheetData><row></worksheet>"),
    "sheet of noise": lambda: with_part(BOOK, SHEET, lambda data: bytes(byte ^ 0x55 for byte in data)),
    "sheet gone": lambda: with_part(BOOK, SHEET, lambda _: None),
    "texts gone": lambda: with_part(BOOK, "xl/sharedStrings.xml", lambda _: None),
    "texts that break off": lambda: with_part(BOOK, "xl/sharedStrings.xml", half),
    "table of contents that breaks off": lambda: with_part(BOOK, "xl/workbook.xml", half),
    "sheet's bytes overwritten": lambda: overwritten(BOOK, SHEET),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_workbook(desk: Desk, kind: str) -> None:
    with pytest.raises(InputError, match=r"^The workbook is damaged or was not fully uploaded.*upload it again"):
        desk.parse(DAMAGED[kind]())


EMPTY = {
    "one blank sheet": (xlsx(), "no data: the sheet 'Sheet1' is empty"),
    "one sheet of spaces": (xlsx([[" "], [None, "\u00a0"]]), "no data: the sheet 'Sheet1' is empty"),
    "blank sheets": (xlsx([], More=[[" "]]), "no data: all its 2 visible sheets are empty"),
    "data only where it is hidden": (xlsx([], hidden=[["a"], [1]]), "no data: the sheet 'Sheet1' is empty"),
    "no table of contents": (with_part(BOOK, "xl/workbook.xml", lambda _: None), "no visible worksheet"),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_workbook_without_data(desk: Desk, kind: str) -> None:
    content, words = EMPTY[kind]
    with pytest.raises(InputError, match=words):
        desk.parse(content)


def test_a_stray_value_in_the_last_cell_does_not_take_all_memory(desk: Desk) -> None:
    with pytest.raises(InputError, match=r"reaches to row 1,048,576 and column 16,384.*one stray value"):
        desk.parse(xlsx(ROWS, last_cell="x"))


def test_a_workbook_that_unpacks_to_too_much(desk: Desk) -> None:
    """The sizes that a zip file claims are enough to refuse it; here two parts claim almost 4 GiB each."""
    book = bytearray(BOOK)
    entry = book.index(b"PK\x01\x02")
    for _ in range(2):
        book[entry + 24 : entry + 28] = b"\xf0\xff\xff\xff"
        entry = book.index(b"PK\x01\x02", entry + 4)
    with pytest.raises(InputError, match="unpacks to more than 4,294,967,296 bytes"):
        desk.parse(bytes(book))


def change_bytes(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for place, byte in changes:
        changed[place % len(changed)] = byte
    return bytes(changed)


changes = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6)
parts = st.sampled_from([None, *zipfile.ZipFile(io.BytesIO(BOOK)).namelist()])


@given(part=parts, changes=changes)
@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_a_file_holds_it_is_parsed_or_refused(
    desk: Desk, part: str | None, changes: list[tuple[int, int]]
) -> None:
    """Bytes changed in the zip file itself, or inside one of its parts with the zip file sound around it."""
    if part is None:
        content = change_bytes(BOOK, changes)
    else:
        content = with_part(BOOK, part, lambda data: change_bytes(data, changes))
    try:
        desk.parse(content)
    except InputError as refusal:
        assert str(refusal).startswith("The ")  # noqa: PT017  (either end is right)

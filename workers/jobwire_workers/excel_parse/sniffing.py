"""What kind of file this is, by its first bytes and its inner table of contents, before a parser is let near it.

A name's ending says nothing: exports called .xls are often web pages, and an upload can be anything.
"""

from __future__ import annotations

import io
import zipfile

from jobwire_workers.excel_parse.errors import InputError

_ADVICE = "Open it in a spreadsheet program, save it as .xlsx and upload it again."
ENCRYPTED = "The workbook is protected by a password, so it cannot be read. Remove the password and upload it again."

_MAX_UNPACKED = 4 * 1024**3

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # the container of .xls, .doc, .ppt, and of anything that Office encrypts
_OTHERS = {
    b"%PDF-": "a PDF document",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"GIF8": "a picture (GIF)",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
}
_ZIP_FOLDERS = {"word/": "a Word document", "ppt/": "a PowerPoint presentation"}


def require_workbook(content: bytes) -> None:
    """Returns if the content looks like a workbook that can be opened; else raises InputError saying what it is."""
    if not content:
        raise InputError("The file is empty (0 bytes). Was the upload interrupted? Upload it again.")
    if content.startswith((_ZIP, _EMPTY_ZIP)):
        _require_zipped_workbook(content)
    elif content.startswith(_OLE):
        _require_ole_workbook(content)
    else:
        raise InputError(f"The file is not a workbook but {_name_of(content)}. {_ADVICE}")


def damaged(detail: str = "") -> InputError:
    """The error for a workbook that breaks off or contradicts itself; `detail`: the parser's own words, if any."""
    words = f" ({detail[:200]})" if detail else ""
    return InputError(f"The workbook is damaged or was not fully uploaded{words}. {_ADVICE}")


def _require_zipped_workbook(content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise damaged() from None
    names = [entry.filename.replace("\\", "/").lower() for entry in entries]
    if not any(name.startswith("xl/") or name == "content.xml" for name in names):
        kinds = (kind for folder, kind in _ZIP_FOLDERS.items() if any(name.startswith(folder) for name in names))
        raise InputError(f"The file is not a workbook but {next(kinds, 'a zip archive')}. {_ADVICE}")
    if sum(entry.file_size for entry in entries) > _MAX_UNPACKED:
        raise InputError(f"The workbook unpacks to more than {_MAX_UNPACKED:,} bytes, which is too large to parse.")


def _require_ole_workbook(content: bytes) -> None:
    # The names of an OLE container's streams stand in its directory as UTF-16, often near the end of the file.
    if _utf16("Root Entry") not in content:
        raise damaged()
    if _utf16("EncryptedPackage") in content:
        raise InputError(ENCRYPTED)
    if _utf16("WordDocument") in content or not (_utf16("Workbook") in content or _utf16("Book\0") in content):
        raise InputError(f"The file is an old Office file but not a workbook. {_ADVICE}")


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def _name_of(content: bytes) -> str:
    for magic, name in _OTHERS.items():
        if content.startswith(magic):
            return name
    start = content[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<html", b"<!doctype html", b"<table")):
        return "a web page, which some programs export under the name .xls"
    if b"\0" not in start:
        return "plain text, perhaps CSV"
    return "a file of an unknown kind"

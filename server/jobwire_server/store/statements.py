"""The statements in `sql/*.sql` and the migrations, for one schema.

The files name the schema `jobwire` and can be pasted into psql as they stand (with parameters filled in); here the
configured schema's quoted name is put in its place.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

_SCHEMA = re.compile(r"\bjobwire\.")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
SCHEMA_NAME: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


def quoted(schema: str) -> str:
    """The schema's name as an SQL identifier."""
    if not SCHEMA_NAME.fullmatch(schema):
        raise ValueError(f"schema {schema!r} must be up to 63 of a-z, 0-9 and _, with no digit and no pg_ first")
    return f'"{schema}"'


def in_schema(text: str, schema: str) -> str:
    """`text` with `schema` in place of the default one."""
    return _SCHEMA.sub(quoted(schema) + ".", text)


def load_statements(schema: str) -> dict[str, bytes]:
    """Every statement by its file's name, without the head comment, for this schema."""
    folder = files(__package__) / "sql"
    return {
        entry.name.removesuffix(".sql"): in_schema(_COMMENT.sub("", entry.read_text("utf-8")), schema).strip().encode()
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }


def load_migrations(schema: str) -> list[tuple[int, str, bytes]]:
    """Every migration in order: number, name, text for this schema."""
    folder = files(__package__) / "migrations"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [
        (int(name[:4]), name.removesuffix(".sql"), in_schema((folder / name).read_text("utf-8"), schema).encode())
        for name in found
    ]

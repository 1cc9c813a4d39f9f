"""Logging: one line per event, through structlog, from our own modules and from libraries alike.

JSON for machines, aligned and coloured text on a terminal. What is known of a call (request id, method, session) is in
every line of that call. Set up once, by the process's entry point; importing this does nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, BinaryIO, Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor

Format = Literal["auto", "json", "console"]

context: ContextVar[Mapping[str, object] | None] = ContextVar("jobwire_log_context", default=None)
"""What is in every line of this task: one mapping that its owner adds to, since a variable for each fact costs more."""

_FIRST = ("timestamp", "level", "event")
"""What a person looks for at the beginning of a line of JSON."""

_LIBRARIES = {
    # They tell at INFO what our own lines tell better.
    "uvicorn.error": logging.WARNING,
    "psycopg.pool": logging.ERROR,
    "asyncio": logging.WARNING,
    "grpc": logging.INFO,
}


class _Unfailing:
    """Standard error, for bytes. A line that cannot be written, as to a pipe that was closed, must not end a call."""

    def write(self, line: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.buffer.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.buffer.flush()


def configure(log_format: Format, level: str) -> None:
    """Sends everything of at least `level` to standard error."""
    on_terminal = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        add_context,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper("%H:%M:%S.%f" if on_terminal else "iso", utc=not on_terminal),
    ]
    rendering = _rendering(on_terminal)
    # Our own lines are written without a LogRecord, which would cost more than all the rest of a line.
    structlog.configure(
        processors=[*shared, *rendering, _encode],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, _Unfailing())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name, least in _LIBRARIES.items():
        logging.getLogger(name).setLevel(max(least, threshold))


def add_context(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Adds what is known of the call under way; what the line itself says comes first."""
    if (known := context.get()) is not None:
        return {**known, **event}
    return event


def _rendering(on_terminal: bool) -> list[Processor]:
    if on_terminal:
        # Plain tracebacks: those with local variables would show payloads and passwords.
        return [
            _short_name,
            structlog.dev.ConsoleRenderer(pad_event_to=24, exception_formatter=structlog.dev.plain_traceback),
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]


def _short_name(_logger: Any, _method: str, event: EventDict) -> EventDict:
    if isinstance(name := event.get("logger"), str):
        event["logger"] = name.removeprefix("jobwire_server.")
    return event


def _json(event: EventDict, **_options: Any) -> str:
    ordered = {name: event[name] for name in _FIRST if name in event} | dict(event)
    try:
        return orjson.dumps(ordered, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # half a surrogate pair, which UTF-8 cannot hold
        return json.dumps(ordered, default=str)


def _encode(_logger: Any, _method: str, line: Any) -> bytes:
    return str(line).encode(errors="backslashreplace")

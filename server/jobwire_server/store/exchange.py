"""Statements and their rows over one connection, below the driver's cursors, whose cost is several times theirs.

What is exchanged at once is one round trip and, outside a transaction, one transaction. Each statement is prepared when
it is first used, with the types of its parameters. No plan is kept for longer than a second: one made while the tables
were empty would not do for a burst. Of no use behind a pooler, where nothing prepared is found again.
"""

from __future__ import annotations

import functools
import re
import time
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.abc import PipelineCommand, PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import OperationalError, error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult
from psycopg.waiting import READY_R, WAIT_R, WAIT_RW

Row = Any
"""A named tuple whose fields are the statement's columns."""

Call = tuple[bytes, Mapping[str, Any]]
"""A statement, with `%(name)s` or, to have it sent in binary whatever it is, `%(name)b` for parameters; and these."""

_PLANS_SECONDS = 1.0

_PARAMETER = re.compile(rb"%\((\w+)\)([sb])")


class Exchange:
    """The statements of one connection. `run` is for the connection's `wait`, under its lock."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._wire = connection.pgconn
        self._adapters = Transformer(connection)
        self._prepared: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self._names = 0
        self._planned = 0.0

    def run(self, calls: Sequence[Call]) -> PQGen[list[Sequence[Row]]]:
        """Sends the statements and returns the rows of each."""
        commands = self._old_plans_away()
        fresh: dict[int, tuple[bytes, tuple[int, ...]]] = {}
        asked: list[int] = []
        for text, params in calls:
            query, names, formats = _parsed(text)
            values = self._adapters.dump_sequence([params[name] for name in names], formats)
            types, sent = self._adapters.types or (), self._adapters.formats
            name = self._prepared.get((text, types))
            if name is None:
                name = b"jobwire_%d" % self._names
                self._names += 1
                fresh[len(commands)] = text, types
                self._prepared[text, types] = name
                commands.append(functools.partial(self._wire.send_prepare, name, query, types))
            asked.append(len(commands))
            commands.append(functools.partial(self._wire.send_query_prepared, name, values, sent, Format.BINARY))
        answers: list[PGresult] = []
        self._wire.enter_pipeline_mode()
        try:
            yield from self._send(commands)
            while len(answers) < len(commands):
                answers.append((yield from self._answer()))
            yield from self._answer()  # to the sync
        finally:
            for place, key in fresh.items():
                if not (place < len(answers) and answers[place].status == ExecStatus.COMMAND_OK):
                    del self._prepared[key]
            if self._wire.status != ConnStatus.BAD:
                self._wire.exit_pipeline_mode()
        self._pass_on_notifications()
        for answer in answers:
            if answer.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(answer)
        return [self._rows(answers[place]) for place in asked]

    def _old_plans_away(self) -> list[PipelineCommand]:
        """What has plans made anew if it is time to; along with statements it costs no round trip."""
        now = time.monotonic()
        if now - self._planned <= _PLANS_SECONDS:
            return []
        self._planned = now
        return [functools.partial(self._wire.send_query_params, b"DISCARD PLANS", None)]

    def _send(self, commands: Sequence[PipelineCommand]) -> PQGen[None]:
        """Sends commands and a sync at once. If the socket is full, what comes meanwhile is taken, to let go of it."""
        for command in commands:
            command()
        self._wire.pipeline_sync()
        while self._wire.flush():
            if (yield WAIT_RW) & READY_R:
                self._wire.consume_input()

    def _answer(self) -> PQGen[PGresult]:
        """The next command's answer, with the end that follows it; that to a sync has none."""
        answer: PGresult | None = None
        while True:
            while self._wire.is_busy():
                if (yield WAIT_R):
                    self._wire.consume_input()
            more = self._wire.get_result()
            if more is None:
                break
            answer = answer or more
            if more.status == ExecStatus.PIPELINE_SYNC:
                break
        if answer is None:
            raise OperationalError("the connection was lost")
        return answer

    def _pass_on_notifications(self) -> None:
        """What came along with the answers, to whom the driver's own statements would give it."""
        while (message := self._wire.notifies()) is not None:
            if self._wire.notify_handler is not None:
                self._wire.notify_handler(message)

    def _rows(self, result: PGresult) -> Sequence[Row]:
        if result.status != ExecStatus.TUPLES_OK or not result.ntuples:
            return []
        self._adapters.set_pgresult(result, format=Format.BINARY)
        make = _row_maker(tuple(result.fname(place) for place in range(result.nfields)))
        return self._adapters.load_rows(0, result.ntuples, make)


@functools.cache
def _parsed(text: bytes) -> tuple[bytes, tuple[str, ...], tuple[PyFormat, ...]]:
    """A statement with numbered parameters, their names and their formats."""
    formats: dict[str, PyFormat] = {}

    def number(match: re.Match[bytes]) -> bytes:
        name = match[1].decode()
        formats.setdefault(name, PyFormat.BINARY if match[2] == b"b" else PyFormat.AUTO)
        return b"$%d" % (list(formats).index(name) + 1)

    return _PARAMETER.sub(number, text), tuple(formats), tuple(formats.values())


@functools.cache
def _row_maker(columns: tuple[bytes, ...]) -> Callable[[Sequence[Any]], Row]:
    named: Any = namedtuple  # noqa: PYI024 - which names is only known here
    make: Callable[[Sequence[Any]], Row] = named("Row", [name.decode() for name in columns])._make
    return make

"""A name server for one name, as a headless Service has it: the addresses of the pods that are ready.

Each answer begins with another address, as CoreDNS does it, and says that it may be kept for 30 s.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

TTL = 30
"""For how long an answer may be kept, in seconds."""

_HEADER = struct.Struct("!HHHHHH")
_QUESTION_END = struct.Struct("!HH")
_ADDRESS_RECORD = struct.Struct("!HHHIH4s")
_ANSWER_NO_ERROR = 0x8580
_POINTER_TO_QUESTION = 0xC00C
_A, _IN = 1, 1


@asynccontextmanager
async def naming(addresses: Callable[[], Sequence[str]]) -> AsyncIterator[str]:
    """Serves `addresses` under any name; gives the server's own address, as `host:port`."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Names(addresses), local_addr=("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")
    try:
        yield f"{host}:{port}"
    finally:
        transport.close()


class _Names(asyncio.DatagramProtocol):
    def __init__(self, addresses: Callable[[], Sequence[str]]) -> None:
        self._addresses = addresses
        self._asked = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", _HEADER.size) + 1
        kind, _ = _QUESTION_END.unpack_from(data, end)
        question = data[_HEADER.size : end + _QUESTION_END.size]
        # To whom asks for IPv6, the name exists and has no such address.
        found = self._turned() if kind == _A else []
        (number,) = struct.unpack_from("!H", data)
        answer = [_HEADER.pack(number, _ANSWER_NO_ERROR, 1, len(found), 0, 0), question]
        for address in found:
            four = bytes(map(int, address.split(".")))
            answer.append(_ADDRESS_RECORD.pack(_POINTER_TO_QUESTION, _A, _IN, TTL, len(four), four))
        self._transport.sendto(b"".join(answer), addr)

    def _turned(self) -> list[str]:
        found = list(self._addresses())
        self._asked += 1
        first = self._asked % len(found) if found else 0
        return found[first:] + found[:first]

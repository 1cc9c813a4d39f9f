"""Clients ping every 30 s, also while they call nothing: the server lets them, as docs/clients.md says.

gRPC passes over an option that it does not know, in silence; and what it does by default shows only after minutes: an
idle client for Node, which pings whatever it hears, would be sent away every two.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest
from grpc._cython import cygrpc

from jobwire.connection import channel_options
from jobwire_server.api import server
from tests.conftest import long

from .conftest import Api

PING, GOAWAY = 6, 7


@pytest.mark.parametrize("name", sorted({name for name, _ in (*server._OPTIONS, *channel_options())}))
def test_every_option_is_one_that_grpc_knows(name: str) -> None:
    assert name.encode() + b"\0" in Path(cygrpc.__file__).read_bytes()


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2, without flags and of no stream."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, 0]) + bytes(4) + payload


@long
async def test_who_pings_no_more_often_than_allowed_is_not_sent_away(api: Api) -> None:
    host, port = api.server.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4))
    for _ in range(6):  # gRPC lets three pass that come too early
        writer.write(frame(PING, bytes(8)))
        async with asyncio.timeout(60):
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3]))
                assert head[3] != GOAWAY, payload
                if head[3] == PING and head[4] & 1:
                    break
        await asyncio.sleep(11)
    writer.close()

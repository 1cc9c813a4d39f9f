"""Server reflection, with which grpcurl and the like list, describe and call without the proto files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection


def enable(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Has `server` describe `services`, given by their full names, and itself."""
    pool = cast(descriptor_pool.DescriptorPool, _Pool())
    reflection.enable_server_reflection((*services, reflection.SERVICE_NAME), server, pool)


class _Pool:
    """The process's descriptors, found by the names of methods, fields and enum values too.

    Python's pool knows only what stands on its own, so `grpcurl describe jobwire.v1.QueueService.Publish` would fail.
    """

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802  (the pool's name)
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            owner, _, part = symbol.rpartition(".")
            file = self._pool.FindFileContainingSymbol(owner)
            if part in _parts(self._pool, owner):
                return file
            raise


def _parts(pool: Any, owner: str) -> Sequence[str]:
    for find, names in (
        (pool.FindServiceByName, "methods_by_name"),
        (pool.FindMessageTypeByName, "fields_by_name"),
        (pool.FindEnumTypeByName, "values_by_name"),
    ):
        try:
            return list(getattr(find(owner), names))
        except KeyError:
            continue
    return ()

"""Reflection: a client without the proto files learns everything from the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from jobwire.v1 import (
    admin_service_pb2,
    dead_letters_pb2,
    job_pb2,
    operations_pb2,
    queue_service_pb2,
    schedule_pb2,
    session_pb2,
)

from .conftest import Api

SERVICES = {
    "jobwire.v1.QueueService",
    "jobwire.v1.AdminService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}


class Reflection:
    """Asks one question after the other on one stream."""

    def __init__(self, api: Api) -> None:
        self.call = reflection_pb2_grpc.ServerReflectionStub(api.channel).ServerReflectionInfo()

    async def ask(self, **question: str) -> ServerReflectionResponse:
        await self.call.write(ServerReflectionRequest(**question))
        return await self.call.read()

    async def files(self, **question: str) -> dict[str, FileDescriptorProto]:
        """The files of an answer, by name."""
        answer = await self.ask(**question)
        assert not answer.HasField("error_response"), (question, answer)
        texts = answer.file_descriptor_response.file_descriptor_proto
        return {file.name: file for file in map(FileDescriptorProto.FromString, texts)}


@pytest.fixture
async def reflection(api: Api) -> AsyncIterator[Reflection]:
    asked = Reflection(api)
    yield asked
    await asked.call.done_writing()
    assert await asked.call.read() == grpc.aio.EOF


async def test_list(reflection: Reflection) -> None:
    answer = await reflection.ask(list_services="*")
    assert {service.name for service in answer.list_services_response.service} == SERVICES


async def test_services_are_described_with_all_they_need(reflection: Reflection) -> None:
    known: dict[str, FileDescriptorProto] = {}
    for service in sorted(SERVICES):
        known |= await reflection.files(file_containing_symbol=service)
    # As grpcurl does: what a file imports is asked for by its name.
    while missing := {name for file in known.values() for name in file.dependency} - known.keys():
        for name in missing:
            known |= await reflection.files(file_by_filename=name)
    pool = DescriptorPool()

    def add(name: str) -> None:
        for needed in known[name].dependency:
            add(needed)
        pool.AddSerializedFile(known[name].SerializeToString())

    for module in (job_pb2, queue_service_pb2, admin_service_pb2):
        add(module.DESCRIPTOR.name)
        told = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(told)
        assert known[module.DESCRIPTOR.name] == told
    publish = pool.FindMethodByName("jobwire.v1.QueueService.Publish")
    assert publish.input_type.fields_by_name["jobs"].message_type.fields_by_name["data"]


@pytest.mark.parametrize(
    "symbol",
    [
        "jobwire.v1.QueueService.Subscribe",
        "jobwire.v1.AdminService.CancelJobs",
        "jobwire.v1.JobSpec",
        "jobwire.v1.JobSpec.data",
        "jobwire.v1.JobState",
        "google.protobuf.Duration",
    ],
)
async def test_every_kind_of_name_is_found(reflection: Reflection, symbol: str) -> None:
    files = await reflection.files(file_containing_symbol=symbol)
    assert any(file.package and symbol.startswith(file.package) for file in files.values())


@pytest.mark.parametrize(
    "symbol",
    ["", ".", "jobwire.v1", "jobwire.v1.", "jobwire.v1.Nothing", "jobwire.v1.JobSpec.nothing", "ü\0", "a" * 9_999],
    ids=lambda symbol: f"{symbol[:20]!a}",
)
async def test_what_does_not_exist_is_not_found(reflection: Reflection, symbol: str) -> None:
    answer = await reflection.ask(file_containing_symbol=symbol)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    answer = await reflection.ask(file_by_filename=symbol)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    # And the stream goes on.
    assert (await reflection.ask(list_services="")).list_services_response.service


def test_the_files_are_those_of_the_repository() -> None:
    folder = Path(__file__).parents[2] / "protos"
    modules = (
        *(admin_service_pb2, dead_letters_pb2, job_pb2, operations_pb2),
        *(queue_service_pb2, schedule_pb2, session_pb2),
    )
    served = {module.DESCRIPTOR.name for module in modules}
    assert {str(file.relative_to(folder)) for file in folder.rglob("*.proto")} == served

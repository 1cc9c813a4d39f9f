"""People's tools, the real ones, which know nothing but what the server tells them by reflection."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from .conftest import Api

SERVICES = ("jobwire.v1.QueueService", "jobwire.v1.AdminService", "grpc.health.v1.Health")
_ROOT = Path(__file__).parents[2]


class Tool(ABC):
    """A command-line client. `program` is where it is."""

    name: str
    missing: str
    """What to do where it is not."""

    def __init__(self, program: str, api: Api) -> None:
        self._program = program
        self._address = api.server.address

    @abstractmethod
    def list_arguments(self) -> Sequence[str]:
        """What lists the services."""

    @abstractmethod
    def call_arguments(self, method: str, data: str) -> Sequence[str]:
        """What calls a method of QueueService."""

    async def list(self) -> str:
        return await self._run(*self.list_arguments())

    async def call(self, method: str, data: object) -> Any:
        """What a call that answers once answers."""
        return _read(json.loads(await self._run(*self.call_arguments(method, json.dumps(data)))))

    async def complaint(self, method: str, data: object) -> str:
        """What it says of a call that fails."""
        return await self._run(*self.call_arguments(method, json.dumps(data)), fails=True)

    @asynccontextmanager
    async def stream(self, method: str, data: object) -> AsyncIterator[AsyncIterator[Any]]:
        """The answers of a stream, as they come."""
        process = await self._start(*self.call_arguments(method, json.dumps(data)))
        try:
            assert process.stdout is not None
            yield _documents(process.stdout)
        finally:
            process.terminate()
            await process.communicate()

    async def _run(self, *arguments: str, fails: bool = False) -> str:
        process = await self._start(*arguments)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert (process.returncode != 0) is fails, (arguments, out, err)
        return (err if fails else out).decode()

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(self._program, *arguments, stdout=pipe, stderr=pipe)


class Buf(Tool):
    name = "buf"
    missing = "make setup"

    def list_arguments(self) -> Sequence[str]:
        return ("curl", "--protocol=grpc", "--http2-prior-knowledge", "--list-services", f"http://{self._address}")

    def call_arguments(self, method: str, data: str) -> Sequence[str]:
        url = f"http://{self._address}/jobwire.v1.QueueService/{method}"
        return ("curl", "--protocol=grpc", "--http2-prior-knowledge", "--emit-defaults", "--data", data, url)


class Grpcurl(Tool):
    name = "grpcurl"
    missing = "make grpcurl, which needs Go"

    def list_arguments(self) -> Sequence[str]:
        return ("-plaintext", self._address, "list")

    def call_arguments(self, method: str, data: str) -> Sequence[str]:
        service = f"jobwire.v1.QueueService/{method}"
        return ("-plaintext", "-emit-defaults", "-d", data, self._address, service)

    async def describe(self, symbol: str) -> str:
        return await self._run("-plaintext", self._address, "describe", symbol)


async def _documents(stdout: asyncio.StreamReader) -> AsyncIterator[Any]:
    """The JSON documents of a text, each as soon as it is complete."""
    decoder, text = json.JSONDecoder(), ""
    while chunk := await stdout.read(65_536):
        text += chunk.decode()
        while text := text.lstrip():
            try:
                document, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            text = text[end:]
            yield _read(document)


def _read(document: Any) -> Any:
    """A document with the names of the proto files: one tool writes `jobId`, the other `job_id`."""
    if isinstance(document, dict):
        return {re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", k): _read(v) for k, v in document.items()}
    return [_read(part) for part in document] if isinstance(document, list) else document


def found(kind: type[Tool], api: Api) -> Any:
    """The tool; skips the test where there is none."""
    places = (Path(sys.executable).parent, _ROOT / ".tools" / "bin", *os.get_exec_path())
    program = shutil.which(kind.name, path=os.pathsep.join(map(str, places)))
    if program is None:
        pytest.skip(f"there is no {kind.name} here: {kind.missing}")
    return kind(program, api)


@pytest.fixture(params=[Buf, Grpcurl], ids=lambda kind: kind.name)
def tool(request: pytest.FixtureRequest, api: Api) -> Tool:
    tool: Tool = found(request.param, api)
    return tool


async def test_list(tool: Tool) -> None:
    listed = (await tool.list()).split()
    assert set(SERVICES) <= set(listed)


async def test_a_job_from_publish_to_its_end(tool: Tool) -> None:
    queue = f"{tool.name}-{uuid4().hex}"
    job = {"data": '{"city": "Köln"}', "headers": {"a": "b"}, "options": {"retry_limit": 0, "expire_in": "90s"}}
    published = await tool.call("Publish", {"queue": queue, "jobs": [job]})
    [result] = published["results"]
    assert result["created"] is True
    async with asyncio.timeout(60), tool.stream("Subscribe", {"queues": [queue], "max_in_flight": 2}) as events:
        opened = (await anext(events))["opened"]
        session = opened["session_id"]
        [delivery] = (await anext(events))["deliveries"]["deliveries"]
        assert delivery["job_id"] == result["job_id"]
        assert (delivery["data"], delivery["headers"]) == (job["data"], job["headers"])
        assert (delivery["attempt"], delivery["expire_in"]) == (1, "90s")
        running = (await tool.call("GetJob", {"job_id": result["job_id"]}))["job"]
        assert (running["state"], running["session_id"]) == ("JOB_STATE_ACTIVE", session)

        # What is published while it listens, it hears of.
        await tool.call("Publish", {"queue": queue, "jobs": [{"data": "2"}]})
        [second] = (await anext(events))["deliveries"]["deliveries"]
        assert second["data"] == "2"

        items = [
            {"handle": delivery["handle"], "complete": {"output": '"done"'}},
            {"handle": second["handle"], "fail": {"type": "Boom", "permanent": True}},
        ]
        acked = await tool.call("Ack", {"session_id": session, "items": items})
        assert [item["status"] for item in acked["results"]] == ["ACK_STATUS_APPLIED"] * 2
        assert acked["session_alive"] is True
    done = (await tool.call("GetJob", {"queue": queue, "job_id": result["job_id"]}))["job"]
    assert (done["state"], done["output"]) == ("JOB_STATE_COMPLETED", '"done"')
    failed = (await tool.call("GetJob", {"queue": queue, "job_id": second["job_id"]}))["job"]
    assert (failed["state"], failed["errors"][0]["type"]) == ("JOB_STATE_FAILED", "Boom")


async def test_a_refusal_is_readable(tool: Tool) -> None:
    complaint = await tool.complaint("Publish", {"queue": "a:b", "jobs": [{"data": "1"}]})
    assert "1 to 63 letters, digits" in complaint and "queue" in complaint
    assert "google.rpc.BadRequest" in complaint


async def test_grpcurl_describes(api: Api) -> None:
    grpcurl: Grpcurl = found(Grpcurl, api)
    assert "rpc Publish ( .jobwire.v1.PublishRequest )" in await grpcurl.describe("jobwire.v1.QueueService")
    assert "rpc Subscribe" in await grpcurl.describe("jobwire.v1.QueueService.Subscribe")
    assert "string data = 2;" in await grpcurl.describe("jobwire.v1.JobSpec")
    assert "JOB_STATE_BLOCKED = 7;" in await grpcurl.describe("jobwire.v1.JobState")


async def test_grpcurl_shows_the_details_of_an_error(api: Api) -> None:
    """Their types are among what the server can describe."""
    grpcurl: Grpcurl = found(Grpcurl, api)
    complaint = await grpcurl.complaint("Publish", {"queue": "work", "jobs": [{"data": "?"}]})
    assert '"field": "jobs[0].data"' in complaint and '"domain": "jobwire"' in complaint

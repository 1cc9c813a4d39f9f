"""The Python client's driver for the conformance suite: does what a line of standard input says, by the public API.

tests/conformance/README.md describes the lines. Always holds: an answer for each request, whatever it asked; nothing
but lines of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from jobwire import (
    Client,
    FailForGood,
    Job,
    JobInfo,
    JobOptions,
    JobwireError,
    NewJob,
    ReleaseJob,
    RetryIn,
    Worker,
)

CLAIMS = (
    *("publish", "republish", "oversize"),
    *("deliver", "ack", "fail", "retry", "progress", "sigterm"),
    *("stale-lease", "extend", "cancel", "slow-reader"),
    *("resume-after-cut", "resume-elsewhere", "peer-vanishes", "drain", "server-restart", "storm"),
    *("bad-token", "tls", "no-tls", "wrong-port", "older-server", "newer-server", "draining-server", "gone-server"),
    *("refused-progress", "checkpoint-first", "unanswered-stop", "lost-lease", "unsure-credits", "receipt"),
)

log = logging.getLogger(__name__)

_LONGEST_LINE = 16 * 1024 * 1024

Request = dict[str, Any]


@dataclass(eq=False)
class Run:
    """A handler that has started and waits to be told how to end."""

    job: Job
    end: asyncio.Future[Any]


class Driver:
    """Answers requests; keeps one connection, one worker, and the handlers that run."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._connection: dict[str, Any] = {}
        self._worker: Worker | None = None
        self._work: asyncio.Task[None] | None = None
        self._stop_asked = False
        self._deaf = False
        self._runs: dict[str, Run] = {}
        self.terminated = asyncio.Event()
        """Set when the worker has ended though nobody asked for that by a line, as after SIGTERM."""

    async def answer(self, line: bytes) -> None:
        """Do what a line says, and say what came of it."""
        request = json.loads(line)
        try:
            result = await self._doing(request["do"])(request)
        except JobwireError as error:
            say(id=request["id"], error=told(error))
        except Exception as error:
            log.exception("request %s", request["do"])
            say(id=request["id"], error=told(error))
        else:
            say(id=request["id"], result=result)

    def _doing(self, what: str) -> Callable[[Request], Awaitable[Any]]:
        return {
            "about": self.about,
            "connect": self.connect,
            "publish": self.publish,
            "get": self.get,
            "wait": self.wait,
            "work": self.work,
            "end": self.end,
            "progress": self.progress,
            "extend": self.extend,
            "stop": self.stop,
        }[what]

    async def about(self, _: Request) -> Any:
        return {"client": "python", "form": "resuming", "claims": CLAIMS}

    async def connect(self, request: Request) -> Any:
        await self.close()
        self._connection = {"target": request["target"]}
        if ca_file := request.get("ca_file"):
            trusted = await asyncio.to_thread(Path(ca_file).read_bytes)
            self._connection["tls"] = grpc.ssl_channel_credentials(trusted)
        if token := request.get("token"):
            self._connection["token"] = token
        self._client = Client(**self._connection, timeout=request["timeout"])
        return {}

    async def publish(self, request: Request) -> Any:
        jobs = [
            NewJob(
                job["data"],
                id=job.get("id"),
                priority=job.get("priority", 0),
                start_in=job.get("start_in"),
                options=JobOptions(**{name: job.get(name) for name in ("retry_limit", "retry_delay", "expire_in")}),
            )
            for job in request["jobs"]
        ]
        return {
            "results": [
                {
                    "job_id": published.job_id,
                    "created": published.created,
                    "reason": published.reason.name if published.reason else "",
                    "data_differs": published.data_differs,
                }
                for published in await self._open_client.publish_many(request["queue"], jobs)
            ]
        }

    async def get(self, request: Request) -> Any:
        return shown(await self._open_client.get_job(request["job_id"], request["queue"]))

    async def wait(self, request: Request) -> Any:
        return shown(await self._open_client.wait(request["job_id"], request["queue"], timeout=request["timeout"]))

    async def work(self, request: Request) -> Any:
        terms = {
            name: request[name] for name in ("stop_grace", "heartbeat_interval", "resume_grace") if name in request
        }
        self._deaf = request.get("deaf", False)
        self._worker = Worker(**self._connection, name=request["name"], **terms)
        self._worker.handler(request["queue"], concurrency=request["concurrency"])(self._handle)
        self._work = asyncio.create_task(self._see_through(self._worker))
        return {}

    async def _see_through(self, worker: Worker) -> None:
        error = None
        try:
            await worker.run()
        except JobwireError as failure:
            error = told(failure)
        say(event="worker_ended", error=error)
        if error is None and not self._stop_asked:
            self.terminated.set()

    async def _handle(self, job: Job) -> Any:
        run = self._runs[job.id] = Run(job, asyncio.get_running_loop().create_future())
        say(event="started", job_id=job.id, attempt=job.attempt, data=job.data, checkpoint=job.checkpoint)
        try:
            return await asyncio.shield(run.end)
        except asyncio.CancelledError:
            say(event="stopping", job_id=job.id, reason="")
            if not self._deaf:
                raise
            return await run.end
        finally:
            if self._runs.get(job.id) is run:
                del self._runs[job.id]

    async def end(self, request: Request) -> Any:
        end = self._run(request).end
        # Not `end.done()`: a handler ends once.
        self._runs.pop(request["job_id"])
        match request["as"]:
            case "complete":
                end.set_result(request.get("output"))
            case "release":
                end.set_exception(ReleaseJob(request.get("delay")))
            case _:
                end.set_exception(failure(request))
        return {}

    async def progress(self, request: Request) -> Any:
        job = self._run(request).job
        await job.progress(request.get("fraction"), request.get("note", ""), checkpoint=request.get("checkpoint"))
        return {}

    async def extend(self, request: Request) -> Any:
        await self._run(request).job.extend(request["seconds"])
        return {}

    async def stop(self, request: Request) -> Any:
        self._stop_asked = True
        if self._worker is not None and self._work is not None:
            self._worker.stop(now=request.get("now", False))
            await self._work
        return {}

    async def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            await self._client.close()

    @property
    def _open_client(self) -> Client:
        if self._client is None:
            raise LookupError("connect first")
        return self._client

    def _run(self, request: Request) -> Run:
        if request["job_id"] not in self._runs:
            raise LookupError(f"no handler of job {request['job_id']} runs")
        return self._runs[request["job_id"]]


def failure(request: Request) -> Exception:
    """What a handler raises that fails as a request says; its class bears the error's type."""
    kind = request.get("type") or "Failure"
    message = request.get("message", "")
    if request.get("permanent"):
        return type(kind, (FailForGood,), {})(message)
    if request.get("retry_in") is not None:
        return type(kind, (RetryIn,), {})(request["retry_in"], message)
    return type(kind, (Exception,), {})(message)


def told(error: Exception) -> dict[str, str]:
    """An error, as a user of the client sees it."""
    if isinstance(error, JobwireError):
        return {"code": error.code.name, "reason": error.reason, "message": str(error)}
    code = "NOT_FOUND" if isinstance(error, LookupError) else "UNKNOWN"
    return {"code": code, "reason": "", "message": f"{type(error).__name__}: {error}"}


def shown(job: JobInfo) -> dict[str, Any]:
    """What the suite looks at in a job."""
    return {
        "job": {
            "state": str(job.state),
            "attempt": job.attempt,
            "retry_count": job.retry_count,
            "output": job.output,
            "errors": [{"type": error.type, "message": error.message} for error in job.errors],
        }
    }


def say(**line: Any) -> None:
    """Write a line."""
    print(json.dumps(line), flush=True)  # noqa: T201


class Warnings(logging.Handler):
    """Says what the client logs at the level of warning or above."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one."""
        say(event="warning", message=record.getMessage())


async def main() -> None:
    """Answer lines until there are no more, or the worker has ended by a signal."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(relativeCreated)6d %(levelname)s %(message)s")
    logging.getLogger("jobwire").addHandler(Warnings(logging.WARNING))
    driver = Driver()
    lines = asyncio.StreamReader(limit=_LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    answering: set[asyncio.Task[None]] = set()
    reading = asyncio.create_task(read(lines, driver, answering))
    await asyncio.wait([reading, asyncio.create_task(driver.terminated.wait())], return_when=asyncio.FIRST_COMPLETED)
    if answering and not reading.done():
        await asyncio.wait(answering, timeout=5)
    await driver.close()


async def read(lines: asyncio.StreamReader, driver: Driver, answering: set[asyncio.Task[None]]) -> None:
    """Answer each line beside those before it."""
    while line := await lines.readline():
        task = asyncio.create_task(driver.answer(line))
        answering.add(task)
        task.add_done_callback(answering.discard)


if __name__ == "__main__":
    asyncio.run(main())

"""A worker as a process, with handlers that misbehave as their job's payload says.

Arguments: target, the file to write to, concurrency, heartbeat interval, resume grace. A payload names one thing:
`sleep` seconds, `block` the event loop for seconds, hold the `gil` for seconds, `die` after having been heard of, or
`drop`: die at once. Handlers write down `start` and `done`, each with job, attempt and process.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from jobwire import Job, Worker

QUEUE = "work"


async def misbehave(job: Job, data: dict[str, Any]) -> None:
    match data:
        case {"block": seconds}:
            time.sleep(seconds)  # noqa: ASYNC251 - that is the point
        case {"gil": seconds}:
            ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # unlike other foreign calls, one of PyDLL keeps the lock
        case {"die": _}:
            await job.extend(60)  # answered: so the server knows that the job arrived
            os._exit(7)
        case {"drop": _}:
            os._exit(7)
        case {"sleep": seconds}:
            await asyncio.sleep(seconds)


def main(target: str, record: Path, concurrency: int, heartbeat: float, grace: float) -> None:
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s %(message)s")
    worker = Worker(
        target, name=f"worker-{os.getpid()}", stop_grace=5.0, heartbeat_interval=heartbeat, resume_grace=grace
    )
    lines = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @worker.handler(QUEUE, concurrency=concurrency)
    async def handle(job: Job) -> dict[str, int]:
        os.write(lines, f"start {job.id} {job.attempt} {os.getpid()}\n".encode())
        await misbehave(job, job.data)
        os.write(lines, f"done {job.id} {job.attempt} {os.getpid()}\n".encode())
        return {"pid": os.getpid()}

    worker.run_forever()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))

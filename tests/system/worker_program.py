"""A worker for the system tests: writes down when its handler starts and ends a job.

Arguments: target, queue, seconds a job takes, concurrency, the file to write to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from jobwire import Job, Worker


def main(target: str, queue: str, seconds: float, concurrency: int, record: Path) -> None:
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s %(message)s")
    worker = Worker(target, name=f"worker-{os.getpid()}", stop_grace=10.0)
    lines = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @worker.handler(queue, concurrency=concurrency)
    async def handle(job: Job) -> dict[str, int]:
        os.write(lines, f"start {job.id} {job.attempt} {os.getpid()}\n".encode())
        steps = max(1, round(seconds / 0.2))
        for step in range(steps):
            await asyncio.sleep(seconds / steps)
            if seconds >= 1:
                await job.progress((step + 1) / steps, f"step {step + 1}")
        os.write(lines, f"done {job.id} {job.attempt} {os.getpid()}\n".encode())
        return {"attempt": job.attempt}

    worker.run_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))

"""A worker with the client's own graces, whose job neither ends nor listens. Argument: target."""

from __future__ import annotations

import sys
import time

from jobwire import Job, Worker


def endless(job: Job) -> None:
    while True:
        time.sleep(1)


def main(target: str) -> None:
    worker = Worker(target)
    worker.handler("work", run_in="process")(endless)
    worker.run_forever()


if __name__ == "__main__":
    main(sys.argv[1])

"""A handler of batches for processes; at the top level of a module, as it must be."""

from __future__ import annotations

import os
import threading

from jobwire import BatchJob, FailForGood


def handle(jobs: list[BatchJob]) -> object:  # noqa: C901
    """Do with each job what its payload says, and with all of them what the first one's says of the end."""
    for job in jobs:
        match job.data["do"]:
            case "complete":
                job.complete([len(jobs), os.getpid()])
            case "fail":
                job.fail(ValueError("not this one"))
            case "never":
                job.fail(FailForGood("never"))
            case "release":
                job.release(delay=2)
            case "report":
                job.report(0.5, f"{job.id} is half done")
                job.extend(600)
            case "until told":
                job.report(0.5)
                pause = threading.Event()
                while not job.cancelled:
                    pause.wait(0.01)
            case "until all are told":
                job.report(0.5)
                pause = threading.Event()
                while not all(each.cancelled for each in jobs):
                    pause.wait(0.01)
    match jobs[0].data.get("then"):
        case "raise":
            raise FailForGood("the rest is lost")
        case "exit":
            os._exit(3)
        case "return":
            return 7
        case _:
            return None

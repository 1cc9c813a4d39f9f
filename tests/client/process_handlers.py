"""Handlers for processes of their own; at the top level of a module, as they must be."""

from __future__ import annotations

import os
import signal
import sys
import threading

from jobwire import FailForGood, Job


def handle(job: Job) -> object:  # noqa: C901
    """Do what the payload says."""
    match job.data["do"]:
        case "pid":
            return os.getpid()
        case "raise":
            raise FailForGood("the workbook is encrypted") from KeyError("key")
        case "exit":
            sys.exit(3)
        case "die":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "report":
            for step in range(1, 10_001):
                job.report(step / 10_000, f"step {step}")
            job.extend(600)
            _until_cancelled(job)
        case "check":
            job.report(0.5)
            _until_cancelled(job)
        case "stubborn":
            job.report(0.5)
            threading.Event().wait()
        case "leave":
            job.report(0.1, checkpoint={"page": 1})
            job.report(0.2, checkpoint={"page": 2})
            job.report(0.3, "and on")
            raise ValueError("page 3")
        case "large":
            return "x" * 400_000
        case unknown:
            raise ValueError(unknown)
    return None


def _until_cancelled(job: Job) -> None:
    pause = threading.Event()
    while not pause.wait(0.01):
        job.check()

"""Client and worker runtime of Jobwire, a job queue as a service.

Publish and wait:

```python
from jobwire import Client

async with Client("127.0.0.1:50051") as client:
    published = await client.publish("excel_parse", {"file_key": "uploads/a.xlsx"})
    job = await client.wait(published.job_id, "excel_parse")
    print(job.state, job.output)
```

Work:

```python
from jobwire import FailForGood, Job, Worker

worker = Worker("127.0.0.1:50051")

@worker.handler("excel_parse", concurrency=4)
async def parse(job: Job) -> dict[str, int]:
    await job.progress(0.5, "half of it")
    return {"rows": 3339}

@worker.handler("render", concurrency=2, run_in="process")
def render(job: Job) -> None:
    for page in range(100):
        job.check()                       # raises JobCancelled if the job is to stop
        job.report(page / 100)

if __name__ == "__main__":
    worker.run_forever()                  # until SIGTERM or Ctrl-C; running jobs are finished or given back
```

In a synchronous program, from any thread: `with jobwire.sync.Client("127.0.0.1:50051") as client: client.publish(…)`.

Jobs run at least once: after a lost connection a job may run again, so handlers are idempotent. Everything logs to
the standard library's loggers under `jobwire`.
"""

from jobwire import sync
from jobwire.admin import Admin
from jobwire.client import Client
from jobwire.errors import (
    Aborted,
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidArgument,
    JobwireError,
    NotFound,
    Overloaded,
    PermissionDenied,
    QueueFull,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from jobwire.job import Job
from jobwire.model import (
    Cancelled,
    CancelStatus,
    JobError,
    JobInfo,
    JobOptions,
    JobState,
    NewJob,
    NotCreatedReason,
    Progress,
    Published,
    QueueCounts,
    QueueInfo,
)
from jobwire.schedules import Cron, MissedRuns, ScheduleInfo, ScheduleState
from jobwire.sessions import RunningJob, SessionInfo
from jobwire.shares import QueueShare
from jobwire.signals import FailForGood, JobCancelled, ReleaseJob, RetryIn
from jobwire.sync import get_job, publish
from jobwire.wire import new_job_id
from jobwire.worker import Worker

__all__ = [
    "Aborted",
    "Admin",
    "CancelStatus",
    "Cancelled",
    "Client",
    "Cron",
    "DeadlineExceeded",
    "FailForGood",
    "FieldViolation",
    "InternalError",
    "InvalidArgument",
    "Job",
    "JobCancelled",
    "JobError",
    "JobInfo",
    "JobOptions",
    "JobState",
    "JobwireError",
    "MissedRuns",
    "NewJob",
    "NotCreatedReason",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Progress",
    "Published",
    "QueueCounts",
    "QueueFull",
    "QueueInfo",
    "QueueShare",
    "ReleaseJob",
    "ResourceExhausted",
    "RetryIn",
    "RunningJob",
    "ScheduleInfo",
    "ScheduleState",
    "SessionInfo",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Worker",
    "get_job",
    "new_job_id",
    "publish",
    "sync",
]

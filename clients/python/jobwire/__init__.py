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
from jobwire.credentials import Access, Token, access_from_environment
from jobwire.dead_letters import BlockedKey, LetterRefusal, Redriven, Unblocked, UnblockStatus, UndeliveredLetter
from jobwire.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    InternalError,
    InvalidArgument,
    JobwireError,
    NotFound,
    Overloaded,
    PermissionDenied,
    QueueBusy,
    QueueFull,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from jobwire.job import BatchJob, Job
from jobwire.limits import Group, QueueLimits, QueuePolicy, QueueSettings, Rate
from jobwire.model import (
    Cancelled,
    CancelStatus,
    JobError,
    JobInfo,
    JobOptions,
    JobOrigin,
    JobState,
    NewJob,
    NotCreatedReason,
    Progress,
    Published,
    QueueCounts,
    QueueInfo,
)
from jobwire.operations import (
    Action,
    ChangeResult,
    Changes,
    ChangeStatus,
    JobChange,
    JobFilter,
    PurgeScope,
    Updated,
    WhichJobs,
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
    "Access",
    "Action",
    "Admin",
    "BatchJob",
    "BlockedKey",
    "CancelStatus",
    "Cancelled",
    "ChangeResult",
    "ChangeStatus",
    "Changes",
    "Client",
    "Cron",
    "DeadlineExceeded",
    "FailForGood",
    "FailedPrecondition",
    "FieldViolation",
    "Group",
    "InternalError",
    "InvalidArgument",
    "Job",
    "JobCancelled",
    "JobChange",
    "JobError",
    "JobFilter",
    "JobInfo",
    "JobOptions",
    "JobOrigin",
    "JobState",
    "JobwireError",
    "LetterRefusal",
    "MissedRuns",
    "NewJob",
    "NotCreatedReason",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Progress",
    "Published",
    "PurgeScope",
    "QueueBusy",
    "QueueCounts",
    "QueueFull",
    "QueueInfo",
    "QueueLimits",
    "QueuePolicy",
    "QueueSettings",
    "QueueShare",
    "Rate",
    "Redriven",
    "ReleaseJob",
    "ResourceExhausted",
    "RetryIn",
    "RunningJob",
    "ScheduleInfo",
    "ScheduleState",
    "SessionInfo",
    "Token",
    "Unauthenticated",
    "Unavailable",
    "UnblockStatus",
    "Unblocked",
    "UndeliveredLetter",
    "Unimplemented",
    "Updated",
    "WhichJobs",
    "Worker",
    "access_from_environment",
    "get_job",
    "new_job_id",
    "publish",
    "sync",
]

"""The numbers of the contract: every bound that a request is checked against, in one place.

Durations are in milliseconds, sizes in bytes, texts in characters.
"""

from __future__ import annotations

from typing import Final

SECOND: Final = 1_000
DAY: Final = 86_400 * SECOND

QUEUE_NAME: Final = r"[A-Za-z0-9_-]{1,63}"

JOBS_PER_PUBLISH: Final = 1_000
ITEMS_PER_ACK: Final = 1_000
REQUEST_BYTES: Final = 3 * 1024 * 1024
"""What the jobs of one Publish, or the items of one Ack, may hold together."""
RECEIVE_BYTES: Final = 4 * 1024 * 1024
"""gRPC's own limit: above `REQUEST_BYTES`, so that our error speaks and not gRPC's."""
STREAM_MESSAGE_BYTES: Final = 1024 * 1024

DATA_BYTES_DEFAULT: Final = 64 * 1024
DATA_BYTES_MAX: Final = 512 * 1024
JSON_DEPTH: Final = 64
DEPTH_MAX: Final = 1_000_000_000

PRIORITY_MAX: Final = 32_767
LABEL: Final = 200
"""A key, a group, a tier."""
TIERS: Final = 100
ACTIVE_MAX: Final = 1_000_000
RATE_STARTS_MAX: Final = 1_000_000
RATE_PERIOD_MIN: Final = 100
RATE_PERIOD_MAX: Final = 31 * DAY
UNIQUE_MAX: Final = 365 * DAY
WAITING_MAX: Final = 3_650 * DAY
GATE_CHANGE_JOBS: Final = 10_000
"""So many live jobs a queue may have while its policy or limits change: all of them pass the gates anew, in one
transaction."""

HEADERS: Final = 20
HEADER_NAME: Final = 100
HEADER_VALUE: Final = 1_000

START_AHEAD_MAX: Final = 3_650 * DAY
RETRY_LIMIT_MAX: Final = 1_000
RETRY_DELAY_MAX: Final = 7 * DAY
EXPIRE_MIN: Final = SECOND
EXPIRE_MAX: Final = 7 * DAY
RETENTION_MAX: Final = 3_650 * DAY

SCHEDULE_NAME: Final = r"[A-Za-z0-9_.:/-]{1,100}"
CRON_LINE: Final = 200
EVERY_MIN: Final = SECOND
EVERY_MAX: Final = 3_650 * DAY
TOLERANCE_DEFAULT: Final = 60 * SECOND
TOLERANCE_MAX: Final = 7 * DAY
MISSED_LIMIT_DEFAULT: Final = 100
MISSED_LIMIT_MAX: Final = 1_000
SCHEDULE_RUNS_PREVIEWED: Final = 100
SCHEDULE_ERROR: Final = 1_000

QUEUES_PER_SESSION: Final = 100
IN_FLIGHT_MAX: Final = 1_000
WEIGHT_MAX: Final = 100
WORKER_NAME: Final = 200
HEARTBEAT_DEFAULT: Final = 5 * SECOND
HEARTBEAT_MAX: Final = 300 * SECOND
RESUME_GRACE_DEFAULT: Final = 15 * SECOND
MISSED_HEARTBEATS: Final = 3

WAIT_MAX: Final = 60 * SECOND
ERRORS_KEPT: Final = 10
ERROR_TYPE: Final = 200
ERROR_MESSAGE: Final = 2_000
ERROR_TRACE: Final = 8_192
PROGRESS_NOTE: Final = 1_000
CHECKPOINT_BYTES: Final = 64 * 1024
SUSPECT_LOSSES: Final = 2
"""From so many losses together with its session on a job is claimed alone. Most workers that die do so for reasons of
their own, and all they held would have to wait for its turn; a job that is to blame shows it at the next death."""

POISON_LOSSES: Final = 5
"""So many losses together with its session make a job a poison job."""

DEDUPLICATION_HOURS: Final = 24
"""For so long after its end a job's id is still known to Publish, if its retention lasts."""

REDRIVE_RATE_MAX: Final = 10_000

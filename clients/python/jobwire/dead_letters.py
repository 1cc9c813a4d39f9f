"""Dead letters on their way back to work, and keys that a failed job holds up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from jobwire.connection import Connection
from jobwire.v1 import dead_letters_pb2 as pb
from jobwire.wire import from_timestamp, to_timestamp

_KEYS_PER_CALL = 500


class LetterRefusal(StrEnum):
    """Why a queue did not take a job that comes from another one."""

    NONE = "none"
    """It did."""
    POLICY = "policy"
    """Its policy allows no further job of that key now."""
    QUEUE_NOT_FOUND = "queue_not_found"
    """There is no such queue."""
    KEY_MISSING = "key_missing"
    """Each of its jobs must have a key, and this one has none."""
    NO_ORIGIN = "no_origin"
    """The job has no origin and no destination was given."""
    WENT_ON = "went_on"
    """The job failed where it was, and went on to another dead letter queue: redrive it from there."""
    OTHER = "other"
    """A reason that this version of the client does not know."""


class UnblockStatus(StrEnum):
    """What became of a failed job that holds up its key."""

    DONE = "done"
    NOT_BLOCKED = "not_blocked"
    """No failed job holds up this key."""
    JOB_GONE = "job_gone"
    """The job is not kept any more: skip it."""
    NO_DEAD_LETTER_QUEUE = "no_dead_letter_queue"
    """The queue has none."""
    DEAD_LETTER_TAKEN = "dead_letter_taken"
    """Somebody has begun with the job's dead letter: skip the job here."""
    UNSPECIFIED = "unspecified"
    """A status that this version of the client does not know."""


_REFUSALS = {
    value: LetterRefusal(name.removeprefix("LETTER_REFUSAL_").replace("UNSPECIFIED", "NONE").lower())
    for name, value in pb.LetterRefusal.items()
}
_STATUSES = {
    value: UnblockStatus(name.removeprefix("UNBLOCK_STATUS_").lower()) for name, value in pb.UnblockStatus.items()
}


@dataclass(frozen=True)
class Redriven:
    """What became of one dead letter of a redrive."""

    job_id: str
    """Its id in the dead letter queue."""
    queue: str
    """The queue it went to, or would have; empty if it has no origin."""
    new_job_id: str
    """Its id there; empty if it stays."""
    refusal: LetterRefusal
    """Why it stays, if it does."""
    met_job_id: str
    """The job in its way, if it stays for one."""


@dataclass(frozen=True)
class UndeliveredLetter:
    """A dead letter that its queue did not take yet. It is tried again every minute."""

    queue: str
    """The queue of the job that failed."""
    job_id: str
    dead_letter: str
    """The queue where it is to go."""
    key: str
    failed_at: datetime
    tries: int
    retry_at: datetime
    refusal: LetterRefusal
    met_job_id: str


@dataclass(frozen=True)
class BlockedKey:
    """A key whose jobs wait behind one that failed."""

    key: str
    job_id: str
    """The failed job."""
    since: datetime | None
    """When it failed; None if its record is not kept any more."""
    waiting: int
    """How many jobs wait behind it, counted up to 10,000."""


@dataclass(frozen=True)
class Unblocked:
    """What became of one key."""

    key: str
    job_id: str
    """The failed job; empty if none held it up."""
    status: UnblockStatus


class DeadLetterCalls:
    """A part of Admin."""

    _connection: Connection
    _timeout: float

    async def redrive(  # noqa: PLR0913 - there are as many ways to choose
        self,
        queue: str,
        destination: str = "",
        *,
        origin_queue: str = "",
        error_type: str = "",
        failed_after: datetime | None = None,
        failed_before: datetime | None = None,
        finished: bool = False,
        limit: int = 0,
        rate: float = 0.0,
        dry_run: bool = False,
    ) -> AsyncIterator[Redriven]:
        """Send jobs of a dead letter queue back to work, step by step, and iterate over what became of each.

        What was iterated over is done; whoever stops early leaves the rest where it is. If an answer is lost, so is
        what it would have told; no job is lost or doubled.

        Args:
            queue: the dead letter queue.
            destination: where the jobs are to go; empty: each to the queue it comes from.
            origin_queue: only those that come from there.
            error_type: only those whose last error was of this type.
            failed_after: only those that failed then or later.
            failed_before: only those that failed before.
            finished: take those too that have finished in the dead letter queue.
            limit: the most to be sent back; 0: all that are there now.
            rate: how many of them start in a second; 0: at once.
            dry_run: only say what would be done.
        """
        request = pb.RedriveJobsRequest(
            queue=queue,
            destination=destination,
            filter=pb.RedriveFilter(
                origin_queue=origin_queue,
                error_type=error_type,
                failed_after=None if failed_after is None else to_timestamp(failed_after),
                failed_before=None if failed_before is None else to_timestamp(failed_before),
            ),
            finished=finished,
            limit=limit,
            rate=rate,
            dry_run=dry_run,
        )
        while True:
            response = await self._connection.call(self._connection.admin.RedriveJobs, request, self._timeout)
            for result in response.results:
                yield Redriven(
                    job_id=result.job_id,
                    queue=result.queue,
                    new_job_id=result.new_job_id,
                    refusal=_REFUSALS.get(result.refusal, LetterRefusal.OTHER),
                    met_job_id=result.met_job_id,
                )
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def list_undelivered(self, dead_letter: str = "") -> AsyncIterator[UndeliveredLetter]:
        """Iterate over dead letters that their queue (this one, or any) did not take yet, fetching page by page."""
        request = pb.ListUndeliveredRequest(dead_letter=dead_letter)
        while True:
            response = await self._connection.call(self._connection.admin.ListUndelivered, request, self._timeout)
            for letter in response.letters:
                yield UndeliveredLetter(
                    queue=letter.queue,
                    job_id=letter.job_id,
                    dead_letter=letter.dead_letter,
                    key=letter.key,
                    failed_at=from_timestamp(letter.fail_time),
                    tries=letter.tries,
                    retry_at=from_timestamp(letter.retry_time),
                    refusal=_REFUSALS.get(letter.refusal, LetterRefusal.OTHER),
                    met_job_id=letter.met_job_id,
                )
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def list_blocked_keys(self, queue: str) -> AsyncIterator[BlockedKey]:
        """Iterate over the keys of a queue that a failed job holds up, by key, fetching page by page."""
        request = pb.ListBlockedKeysRequest(queue=queue)
        while True:
            response = await self._connection.call(self._connection.admin.ListBlockedKeys, request, self._timeout)
            for key in response.keys:
                since = from_timestamp(key.since) if key.HasField("since") else None
                yield BlockedKey(key.key, key.job_id, since, key.waiting)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def skip_keys(self, queue: str, keys: Iterable[str]) -> list[Unblocked]:
        """Leave the failed jobs that hold up these keys failed, and have the next ones go on."""
        return await self._unblock(queue, keys, pb.UNBLOCK_ACTION_SKIP)

    async def retry_keys(self, queue: str, keys: Iterable[str]) -> list[Unblocked]:
        """Bring the failed jobs that hold up these keys back, each first in its key, with all its retries."""
        return await self._unblock(queue, keys, pb.UNBLOCK_ACTION_RETRY)

    async def dead_letter_keys(self, queue: str, keys: Iterable[str]) -> list[Unblocked]:
        """Send the failed jobs that hold up these keys to the dead letter queue, and have the next ones go on."""
        return await self._unblock(queue, keys, pb.UNBLOCK_ACTION_DEAD_LETTER)

    async def _unblock(self, queue: str, keys: Iterable[str], action: pb.UnblockAction.ValueType) -> list[Unblocked]:
        wanted = list(keys)
        results: list[Unblocked] = []
        for start in range(0, len(wanted), _KEYS_PER_CALL):
            request = pb.UnblockKeysRequest(queue=queue, keys=wanted[start : start + _KEYS_PER_CALL], action=action)
            response = await self._connection.call(self._connection.admin.UnblockKeys, request, self._timeout)
            results += [
                Unblocked(each.key, each.job_id, _STATUSES.get(each.status, UnblockStatus.UNSPECIFIED))
                for each in response.results
            ]
        return results

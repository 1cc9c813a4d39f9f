"""The calls of AdminService about dead letters and blocked keys."""

# ruff: noqa: N802, ARG002  (names and arguments are gRPC's)

from __future__ import annotations

from typing import Any

import grpc.aio

from jobwire.v1 import dead_letters_pb2 as pb
from jobwire_server.api import dead_letter_requests as requests
from jobwire_server.api.answers import timestamp
from jobwire_server.api.calls import this_call
from jobwire_server.broker.broker import Broker
from jobwire_server.domain.dead_letters import BlockedKey, Redriven, Refusal, Unblocked, Undelivered

Context = grpc.aio.ServicerContext[Any, Any]

_REFUSALS = {
    None: pb.LETTER_REFUSAL_UNSPECIFIED,
    Refusal.POLICY: pb.LETTER_REFUSAL_POLICY,
    Refusal.NO_QUEUE: pb.LETTER_REFUSAL_QUEUE_NOT_FOUND,
    Refusal.NO_KEY: pb.LETTER_REFUSAL_KEY_MISSING,
    Refusal.NO_ORIGIN: pb.LETTER_REFUSAL_NO_ORIGIN,
    Refusal.WENT_ON: pb.LETTER_REFUSAL_WENT_ON,
}


class DeadLetterCalls:
    """A part of the AdminServicer."""

    _broker: Broker

    async def RedriveJobs(self, request: pb.RedriveJobsRequest, context: Context) -> pb.RedriveJobsResponse:
        order, place = requests.redrive_order(request)
        this_call().note(queue=order.queue, dry_run=order.dry_run)
        step = await self._broker.dead_letters.redrive(order, place)
        this_call().note(jobs=len(step.results), redriven=step.redriven)
        return pb.RedriveJobsResponse(
            results=map(_redriven, step.results),
            redriven=step.redriven,
            next_page_token=requests.place_token(step.next),
        )

    async def ListUndelivered(self, request: pb.ListUndeliveredRequest, context: Context) -> pb.ListUndeliveredResponse:
        page = requests.undelivered_page(request)
        found = await self._broker.dead_letters.undelivered(page.target, page.after, page.size + 1)
        letters, last = found[: page.size], found[page.size - 1 : page.size]
        more = len(found) > page.size
        return pb.ListUndeliveredResponse(
            letters=map(_undelivered, letters),
            next_page_token=requests.after_token(last[0].queue, last[0].job_id, last[0].failed_at) if more else "",
        )

    async def ListBlockedKeys(self, request: pb.ListBlockedKeysRequest, context: Context) -> pb.ListBlockedKeysResponse:
        page = requests.key_page(request)
        this_call().note(queue=page.queue)
        found = await self._broker.dead_letters.blocked_keys(page.queue, page.after, page.size + 1)
        keys = found[: page.size]
        return pb.ListBlockedKeysResponse(
            keys=map(_blocked, keys), next_page_token=keys[-1].key if len(found) > page.size else ""
        )

    async def UnblockKeys(self, request: pb.UnblockKeysRequest, context: Context) -> pb.UnblockKeysResponse:
        queue, keys, action = requests.unblocking(request)
        this_call().note(queue=queue, keys=len(keys), action=action.name.lower())
        return pb.UnblockKeysResponse(
            results=map(_unblocked, await self._broker.dead_letters.unblock(queue, keys, action))
        )


def _redriven(result: Redriven) -> pb.RedriveResult:
    return pb.RedriveResult(
        job_id=str(result.id),
        queue=result.queue,
        new_job_id=str(result.new_id or ""),
        refusal=_REFUSALS[result.refusal],
        met_job_id=str(result.met or ""),
    )


def _undelivered(letter: Undelivered) -> pb.UndeliveredLetter:
    return pb.UndeliveredLetter(
        queue=letter.queue,
        job_id=str(letter.job_id),
        dead_letter=letter.target,
        key=letter.key or "",
        fail_time=timestamp(letter.failed_at),
        tries=letter.tries,
        retry_time=timestamp(letter.retry_at),
        refusal=_REFUSALS[letter.refusal],
        met_job_id=str(letter.met or ""),
    )


def _blocked(key: BlockedKey) -> pb.BlockedKey:
    return pb.BlockedKey(key=key.key, job_id=str(key.job_id), since=timestamp(key.since), waiting=key.waiting)


def _unblocked(result: Unblocked) -> pb.UnblockResult:
    return pb.UnblockResult(
        key=result.key, job_id=str(result.job_id or ""), status=pb.UnblockStatus.ValueType(result.status)
    )

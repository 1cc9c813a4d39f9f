"""The queues of a run where jobs wait for others: of their key, of their group, or for their queue's limits."""

from __future__ import annotations

import random

from jobwire.v1 import admin_service_pb2 as pb
from jobwire.wire import to_duration

PLAIN = ("alpha", "beta")
GATED = ("singles", "rows", "tenants", "rated")
QUEUES = (*PLAIN, *GATED)
DRAWN = (*PLAIN * 3, *GATED)
"""As often as jobs are published to each: a tenth of them to each gated queue."""

_TIERS = ("", "", "", "", "gold", "gold")
_JOBS_PER_KEY = 40


def messages(rate: float) -> list[pb.Queue]:
    """The gated queues, with limits for a load of so many jobs a second that are met now and then."""
    share = rate / len(DRAWN)
    return [
        pb.Queue(name="singles", policy=pb.QUEUE_POLICY_SINGLETON),
        pb.Queue(name="rows", policy=pb.QUEUE_POLICY_KEY_STRICT_FIFO),
        pb.Queue(
            name="tenants",
            fair=True,
            limits=pb.QueueLimits(
                max_active=max(6, round(share / 2)),
                group_max_active=max(2, round(share / 10)),
                tier_max_active={"gold": max(3, round(share / 7))},
                group_rate=_rate(share),
            ),
        ),
        pb.Queue(name="rated", limits=pb.QueueLimits(rate=_rate(2 * share))),
    ]


def _rate(per_second: float) -> pb.Rate:
    return pb.Rate(starts=max(5, round(per_second)), period=to_duration(1.0))


def labels(queue: str, count: int, chance: random.Random) -> tuple[str, str, str]:
    """Key, group and tier of the job that is published as the `count`-th of its publisher.

    A key whose order is strict is used for a while only: at some time one of its jobs fails, and holds up the rest.
    """
    match queue:
        case "singles":
            return chance.choice(["", *(f"single-{n}" for n in range(12))]), "", ""
        case "rows":
            return f"row-{count // (_JOBS_PER_KEY * len(DRAWN))}-{chance.randrange(4)}", "", ""
        case "tenants":
            tenant = chance.randrange(len(_TIERS))
            return "", f"tenant-{tenant}", _TIERS[tenant]
    return "", "", ""

"""How long it took until all was well again, from the history: worker death, replica death, database restart."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from jobwire_server.domain.handles import Handle
from tests.chaos.history import Ack, Acked, Delivered, Ended, EndState, Event, Fault, Opened

_BEFORE_SECONDS = 5.0
_WINDOW_SECONDS = 2.0
_STEP_SECONDS = 0.1
_PART = 0.95
_ENOUGH_PER_SECOND = 10.0
_CLAIMED_LATELY_SECONDS = 10.0
_DATABASE_RESTARTS = frozenset({"stop", "crash", "kill-backend"})


class Recoveries:
    """The times, in seconds, a number for each fault of the kind: none that was too near to others to be told.

    A death is left out if the database or another server was hit before it was over: all graces then begin anew.

    `workers`: from the death of a worker until the last of what it held is delivered again. `replicas`: from the death
    of a replica until each worker that had a stream there has one again, and what was claimed for one but never arrived
    is delivered. `database`: from the moment when PostgreSQL takes connections again to the end of the first two
    seconds in which completions are back at 95 % of their rate before the fault.
    """

    def __init__(self, events: Sequence[Event], end: EndState) -> None:
        self._deliveries: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
        self._settled: dict[str, float] = {}
        self._completions: list[float] = []
        self._streams: dict[str, list[tuple[float, bool]]] = defaultdict(list)
        self._end = end
        self._read(events)
        faults = [event for event in events if isinstance(event, Fault)]
        service = [fault for fault in faults if "server-" in fault.victim or "postgres" in fault.victim]
        self.workers = _alone(self._worker, [fault for fault in faults if fault.victim.startswith("worker-")], service)
        self.replicas = _alone(self._replica, service, service)
        self.database = [
            seconds
            for fault in faults
            if fault.victim == "postgres" and fault.what in _DATABASE_RESTARTS
            if (seconds := self._rate_is_back(fault, faults)) is not None
        ]

    def _read(self, events: Iterable[Event]) -> None:
        asked: dict[tuple[str, int], Ack] = {}
        for event in events:
            match event:
                case Delivered():
                    for handle, _, job, attempt, _, _ in event.jobs:
                        self._deliveries[job].append((event.t, attempt, handle))
                case Ack():
                    asked[event.who, event.call] = event
                case Acked():
                    self._acked(asked.pop((event.who, event.call)), event)
                case Opened():
                    self._streams[event.who].append((event.t, True))
                case Ended():
                    self._streams[event.who].append((event.t, False))

    def _acked(self, request: Ack, answer: Acked) -> None:
        for (handle, what), status in zip(request.items, answer.results, strict=True):
            if status == "APPLIED" and what != "extend":
                self._settled[handle] = answer.t
                if what == "complete":
                    self._completions.append(answer.t)

    def _worker(self, fault: Fault) -> float:
        """Until the last of what it held is delivered again."""
        slowest = 0.0
        for claim in self._end.claims:
            if claim.worker != fault.victim or claim.t > fault.t:
                continue
            for job in claim.ids:
                slowest = max(slowest, self._delivered_again(job, claim.token, fault.t))
        return slowest

    def _delivered_again(self, job: str, token: str, since: float) -> float:
        """How long after `since` a job is delivered whose delivery by this claim had no end then; 0 if it had one."""
        seen = self._deliveries.get(job, [])
        mine = next((place for place, (_, _, handle) in enumerate(seen) if _token(handle) == token), None)
        if mine is not None and self._settled.get(seen[mine][2], since + 1) <= since:
            return 0.0
        later = [t for t, _, handle in seen if t > since and _token(handle) != token]
        return later[0] - since if later else 0.0

    def _replica(self, fault: Fault) -> float:
        slowest = 0.0
        for seen in self._streams.values():
            # A stream that the death ended, and the one that followed.
            ended = next((t for t, opened in seen if not opened and fault.t <= t <= fault.until + 1.0), None)
            if ended is not None:
                again = next((t for t, opened in seen if opened and t >= ended), None)
                slowest = max(slowest, again - fault.t if again is not None else 0.0)
        for claim in self._end.claims:
            if fault.t - _CLAIMED_LATELY_SECONDS < claim.t < fault.t:
                for job in claim.ids:
                    received = any(_token(handle) == claim.token for _, _, handle in self._deliveries.get(job, ()))
                    if not received:
                        slowest = max(slowest, self._delivered_again(job, claim.token, fault.t))
        return slowest

    def _rate_is_back(self, fault: Fault, faults: Sequence[Fault]) -> float | None:
        """None if another fault was near, or if too little went on before to tell a rate."""
        near = [
            other
            for other in faults
            if other is not fault and other.what != "abandon"
            if other.until > fault.t - _BEFORE_SECONDS and other.t < fault.until + _WINDOW_SECONDS
        ]
        before = self._rate(fault.t - _BEFORE_SECONDS, fault.t)
        if near or before < _ENOUGH_PER_SECOND:
            return None
        at = fault.until
        last = self._completions[-1]
        while at < last:
            if self._rate(at, at + _WINDOW_SECONDS) >= _PART * before:
                return at + _WINDOW_SECONDS - fault.until
            at += _STEP_SECONDS
        return None

    def _rate(self, begin: float, end: float) -> float:
        count = bisect_right(self._completions, end) - bisect_left(self._completions, begin)
        return count / (end - begin)


def _alone(measure: Callable[[Fault], float], faults: Iterable[Fault], service: Iterable[Fault]) -> list[float]:
    """What `measure` says of those that are kills, but for those that another fault of the service fell into."""
    measured = [(fault, measure(fault)) for fault in faults if fault.what == "kill" and "postgres" not in fault.victim]
    return [
        seconds
        for fault, seconds in measured
        if not any(
            other is not fault and other.t < fault.t + seconds and other.until > fault.t - _BEFORE_SECONDS
            for other in service
        )
    ]


def _token(handle: str) -> str:
    parsed = Handle.parse(handle)
    assert parsed is not None
    return str(parsed.token)

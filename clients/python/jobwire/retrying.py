"""When a failed call is repeated, and after what pause.

What must not be repeated does not come here, so what decides is only whether repeating can help.
"""

from __future__ import annotations

import random
import time

import grpc

from jobwire.errors import JobwireError

_WORTH_REPEATING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,  # not by the caller
}

ATTEMPT_TIMEOUT = 5.0
"""How long one attempt may take, so that a connection that died unnoticed leaves time for another attempt."""


def worth_repeating(error: JobwireError) -> bool:
    """Whether the same call may succeed later."""
    return error.code in _WORTH_REPEATING or error.retry_after is not None


class Backoff:
    """Pauses that grow, with full jitter: each is uniform between 0 and a bound that doubles.

    Full jitter spreads a thousand clients of one restarted server best:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, first: float = 0.1, cap: float = 3.0) -> None:
        self._first = first
        self._cap = cap
        self._bound = first

    def pause(self, at_least: float | None = None) -> float:
        """Return the next pause in seconds; `at_least` is what the server asked for."""
        pause = random.uniform(0, self._bound) + (at_least or 0.0)
        self._bound = min(self._cap, self._bound * 2)
        return pause

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._bound = self._first


class Attempts:
    """The attempts of one call within its time; knows no event loop, so that sync and async callers share it."""

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._backoff = Backoff()
        self._cut_short = False
        self._met: JobwireError | None = None

    def timeout(self) -> float:
        """Return how long the next attempt may take, in seconds."""
        left = self._deadline - time.monotonic()
        self._cut_short = left < ATTEMPT_TIMEOUT
        return max(0.001, min(ATTEMPT_TIMEOUT, left))

    def pause_after(self, error: JobwireError) -> float:
        """Return how long to wait before the next attempt; raises `error` if there should be none."""
        if not worth_repeating(error):
            raise error
        if self._met is not None and self._cut_short and error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            # That the last attempt had no time left tells nothing; what those before it met does.
            raise self._met
        self._met = error
        pause = self._backoff.pause(error.retry_after)
        if time.monotonic() + pause >= self._deadline:
            raise error
        return pause

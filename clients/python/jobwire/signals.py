"""What a handler says by raising, other than that it failed."""

from __future__ import annotations

from jobwire.wire import Seconds, in_seconds

_LONGEST_PAUSE = 7 * 24 * 3600.0


def pause(span: Seconds) -> float:
    """Return a pause that may be asked for, in seconds; raises an error for what is none."""
    seconds = in_seconds(span)
    if not 0 <= seconds <= _LONGEST_PAUSE:
        raise ValueError(f"a pause of {seconds:g} s: it must be 0 s to 7 days")
    return seconds


class FailForGood(Exception):
    """Fails the job without further retries, with a message for people.

    Subclasses are fine: the class name becomes the error's type.
    """


class RetryIn(Exception):
    """Fails this run, and asks for the next one after exactly this pause (0 s to 7 days). Uses up a retry."""

    seconds: float = 0.0

    def __init__(self, seconds: Seconds, message: str = "") -> None:
        self.seconds = pause(seconds)
        super().__init__(message or f"to be tried again in {self.seconds:g} s")


class ReleaseJob(Exception):
    """Gives the job back untouched: no retry is used up.

    `delay` (0 s to 7 days) is the pause before the next delivery. None: at once the first time, then growing to 60 s.
    """

    delay: float | None = None

    def __init__(self, delay: Seconds | None = None) -> None:
        self.delay = None if delay is None else pause(delay)
        super().__init__("given back")


class JobCancelled(BaseException):
    """Raised by `Job.check` in a blocking handler that is to stop; let it pass.

    Like asyncio.CancelledError it is no Exception, so that `except Exception` does not swallow it.
    """

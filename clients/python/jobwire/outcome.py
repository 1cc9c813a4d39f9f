"""How a run of a handler ended, and what is said of it in an Ack.

Whatever a handler returns or raises becomes one of four plain outcomes that can travel between processes; nothing that
it raises goes further than this.
"""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from jobwire.signals import FailForGood, JobCancelled, ReleaseJob, RetryIn, pause
from jobwire.v1.queue_service_pb2 import AckItem, Complete, Fail, Release
from jobwire.wire import clean_text, to_duration, to_json

_TRACE_BYTES = 8 * 1024


class StopReason(Enum):
    """Why a handler is told to stop."""

    REQUESTED = auto()
    """Somebody cancelled the job."""
    EXPIRED = auto()
    """Its time limit is over."""
    LEASE_LOST = auto()
    """The server gave the job to somebody else, or to nobody."""
    SILENCE = auto()
    """Nothing was heard from the server for so long that it may have done so."""
    STOPPING = auto()
    """The worker stops."""


@dataclass(frozen=True)
class Completed:
    """The handler returned."""

    output: str
    """Its result as JSON text; empty for None."""


@dataclass(frozen=True)
class Failed:
    """The handler raised, or its result cannot travel."""

    type: str
    message: str
    trace: str = ""
    permanent: bool = False
    retry_in: float | None = None


@dataclass(frozen=True)
class Released:
    """The job goes back untouched."""

    delay: float | None = None


@dataclass(frozen=True)
class Stopped:
    """The handler ended because it was told to."""


_COMPLETED = Completed("")

JUST_COMPLETED = AckItem(complete=Complete())
"""The statement of most deliveries: one object for all of them, which nobody may change."""

Outcome = Completed | Failed | Released | Stopped
Settling = Completed | Failed | Released


def completed(result: Any) -> Completed | Failed:
    """The outcome of a handler that returned `result`."""
    if result is None:
        return _COMPLETED
    try:
        return Completed(to_json(result))
    except ValueError as error:
        return bad_result(str(error))


def bad_result(why: str) -> Failed:
    """The outcome of a handler whose result nobody takes; running it again would not help."""
    return Failed("BadResult", f"the handler's result cannot be stored: {why}", permanent=True)


def raised(error: BaseException, *, told_to_stop: bool) -> Outcome:
    """The outcome of a handler that raised `error`."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        # A TaskGroup in the handler wraps what its only failed task raised.
        error = error.exceptions[0]
    if told_to_stop and isinstance(error, JobCancelled | asyncio.CancelledError):
        return Stopped()
    message, retry_in = _text_of(error), None
    try:
        # Looked at again: a subclass may have put there what it liked.
        if isinstance(error, ReleaseJob):
            return Released(None if error.delay is None else pause(error.delay))
        if isinstance(error, RetryIn):
            retry_in = pause(error.seconds)
    except Exception as fault:  # noqa: BLE001 - as with its text
        message = f"{message} (it names no pause: {fault})"
    return Failed(
        type=type(error).__name__,
        message=message,
        trace=_trace_of(error),
        permanent=isinstance(error, FailForGood),
        retry_in=retry_in,
    )


def settling(outcome: Outcome, reason: StopReason | None) -> Settling:
    """What to report of a run that was told to stop for `reason`, if it was."""
    if isinstance(outcome, Completed):
        return outcome
    if isinstance(outcome, Stopped):
        if reason is StopReason.EXPIRED:
            return Failed("EXPIRED", "the run took longer than its time limit; expire_in sets it, Job.extend moves it")
        return Released()
    plain_failure = isinstance(outcome, Failed) and not outcome.permanent and outcome.retry_in is None
    if plain_failure and reason in (StopReason.STOPPING, StopReason.SILENCE, StopReason.LEASE_LOST):
        # It broke because it was interrupted, for a reason that is not the job's: that uses up no retry.
        return Released()
    return outcome


def ack_item(outcome: Settling) -> AckItem:
    """The statement that settles a delivery, without its handle: that is written where it is sent."""
    match outcome:
        case Completed():
            return AckItem(complete=Complete(output=outcome.output)) if outcome.output else JUST_COMPLETED
        case Failed(type_, message, trace, permanent, retry_in):
            return AckItem(
                fail=Fail(
                    type=clean_text(type_, 200),
                    message=clean_text(message, 2000),
                    trace=_end_of(trace),
                    permanent=permanent,
                    retry_in=None if retry_in is None else to_duration(retry_in),
                ),
            )
        case Released(delay):
            return AckItem(release=Release(delay=None if delay is None else to_duration(delay)))


def _text_of(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001 - an exception's own __str__ may be broken
        return f"{type(error).__name__} (its text cannot be shown)"


def _trace_of(error: BaseException) -> str:
    try:
        if isinstance(told := getattr(error, "trace", None), str):
            # The place that matters is not in this program: such as the end of what a command said.
            return told
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("jobwire."):
            # How this package calls a handler tells nobody anything.
            frames = frames.tb_next
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 - as above
        return ""


def _end_of(trace: str) -> str:
    """Keep the end of a long trace: it names the place."""
    text = clean_text(trace, len(trace))
    return text.encode()[-_TRACE_BYTES:].decode(errors="ignore")

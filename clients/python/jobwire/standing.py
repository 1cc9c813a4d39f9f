"""What a session is to the server, as far as the worker knows. No I/O; all times are the event loop's clock."""

from __future__ import annotations

import asyncio

from jobwire.v1.queue_service_pb2 import SessionOpened
from jobwire.wire import from_duration

OPENING_TIME = 10.0
"""How long the first event of a stream may take, in seconds."""


class Standing:
    """The identity, terms and signs of life of one session.

    `held` are the deliveries whose settling Ack has not been answered; nothing else may be named in a resume.
    """

    def __init__(self) -> None:
        self.id = ""
        """The session; empty if there is none."""
        self.epoch = 0
        """The number of the last Subscribe that was made for it."""
        self.last_sequence = 0
        """The last event received on the present stream."""
        self.held: dict[str, str] = {}
        """The job ids of the deliveries that the session holds, by handle."""
        self.told_credits: int | None = 0
        """The credits that the server was told of last; None if it may have heard others since."""
        self.heartbeat = 0.0
        self._grace = 0.0
        self._opened = False
        self._patient = False
        self._last_event = 0.0
        self._last_sign = 0.0
        self.changed = asyncio.Event()
        """Set when the terms change, so that whoever sleeps until a time reckoned from them looks again."""

    def subscribing(self, credits_told: int) -> None:
        """A new Subscribe is about to be made."""
        self.last_sequence = 0
        self.told_credits = credits_told
        self._opened = False
        self._last_event = _now()
        if self.id:
            self.epoch += 1
        self.changed.set()

    def opened(self, opened: SessionOpened) -> None:
        """The stream is open under these terms."""
        self.id = opened.session_id
        self.epoch = max(self.epoch, opened.epoch)
        self.heartbeat = from_duration(opened.heartbeat_interval)
        self._grace = max(from_duration(opened.resume_grace), 3 * self.heartbeat)
        self._opened = True
        self.changed.set()

    def told(self, session: str, epoch: int, places: int, *, answered: bool) -> None:
        """An Ack of that session and epoch has named its places as credits.

        It may have counted though it was not answered; and one that a resume has overtaken may have counted before or
        after that.
        """
        if session == self.id:
            self.told_credits = places if answered and epoch == self.epoch else None

    def draining(self, resume_within: float) -> None:
        """The server goes away, and waits so long for a resume."""
        self._grace = resume_within
        self.changed.set()

    def event(self, sequence: int) -> None:
        """An event arrived."""
        self.last_sequence = sequence
        self._last_event = _now()
        if self._opened:
            self._patient = False
        self.sign()

    def sign(self) -> None:
        """The server gave a sign of life."""
        self._last_sign = _now()

    def fell_silent(self) -> None:
        """The stream was given up since it brought nothing."""
        self._patient = True

    def lost(self) -> None:
        """The session is over."""
        self.id = ""
        self.epoch = 0
        self.last_sequence = 0
        self.held.clear()

    @property
    def open(self) -> bool:
        """Whether the last Subscribe has been answered: until then it may overrule what is said of credits."""
        return bool(self.id) and self._opened

    @property
    def event_due(self) -> float:
        """When a stream that brought no event until then is given up, and its connection with it.

        After half of the grace that holds: what is left of the time until `sign_due` is for the resume, of which
        handlers then notice nothing. A stream that follows a silent one has all that time, or a delivery that takes so
        long on a slow line would never arrive.
        """
        if not self._opened:
            return self._last_event + OPENING_TIME
        return self._last_event + (self._silence if self._patient else self._grace / 2)

    @property
    def sign_due(self) -> float:
        """When handlers are cancelled if nothing was heard of the server until then."""
        return self._last_sign + self._silence

    @property
    def _silence(self) -> float:
        return self._grace * 2 / 3


def _now() -> float:
    return asyncio.get_running_loop().time()

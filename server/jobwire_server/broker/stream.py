"""One Subscribe call as the broker sees it: a line of events that the API writes out.

The broker adds events without waiting; the API takes one after the other, each when the one before has been written. So
a slow reader holds up nothing but its own line. While a line is `behind`, its session gets no more jobs, whatever its
credits: what a reader leaves unread takes a megabyte or two, and what one claim brought.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from jobwire_server.domain.errors import JobwireError
from jobwire_server.domain.limits import STREAM_MESSAGE_BYTES

from .messages import Deliveries, Draining, Event, Heartbeat


class Stream:
    """The events of one Subscribe call, numbered from 1 as they are taken."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._error: JobwireError | None = None
        self._taken = 0
        self._under_way: Event | None = None
        self._waiting_bytes = 0
        self.on_room: Callable[[], None] = lambda: None
        """Called when it is behind no more."""
        self.last_written = 0

    def push(self, event: Event) -> None:
        """Adds an event; a heartbeat only if none waits already. After the end, nothing is added."""
        if self._ended or (
            isinstance(event, Heartbeat) and any(isinstance(waiting, Heartbeat) for waiting in self._events)
        ):
            return
        self._events.append(event)
        self._waiting_bytes += _size(event)
        self._ended = isinstance(event, Draining)
        self._arrived.set()

    def end(self, error: JobwireError | None = None) -> None:
        """Ends the stream: in order after what is in line, or with an error at once."""
        if error is not None:
            self._events.clear()
            self._waiting_bytes = 0
            self._error = error
        self._ended = True
        self._arrived.set()

    async def next_event(self) -> Event | None:
        """The next event; None when the stream ends in order; raises what it ended with."""
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self._taken += 1
        self._under_way = self._events.popleft()
        return self._under_way

    @property
    def next_sequence(self) -> int:
        """The number that the next event to be taken will have."""
        return self._taken + 1 + len(self._events)

    def written(self, sequence: int) -> None:
        """Notes that the event of this number, the last one taken, has been handed to the connection."""
        self.last_written = sequence
        if sequence == self._taken and self._under_way is not None:
            was_behind = self.behind
            self._waiting_bytes -= _size(self._under_way)
            self._under_way = None
            if was_behind and not self.behind:
                self.on_room()

    @property
    def behind(self) -> bool:
        """Whether more waits to be handed to the connection than one message holds."""
        return self._waiting_bytes > STREAM_MESSAGE_BYTES

    @property
    def heartbeat_waits(self) -> bool:
        """Whether a heartbeat has not been handed to the connection yet."""
        return isinstance(self._under_way, Heartbeat) or any(isinstance(event, Heartbeat) for event in self._events)

    def unwritten(self) -> list[Deliveries]:
        """The deliveries that were not handed to the connection: not the one under way, which may have arrived."""
        return [event for event in self._events if isinstance(event, Deliveries)]


def _size(event: Event) -> int:
    return event.size if isinstance(event, Deliveries) else 0

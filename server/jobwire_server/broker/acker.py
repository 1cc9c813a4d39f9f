"""Acks: applied in groups, answered one by one, told to whom they concern."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, AckResult, AckStatus, Extend
from jobwire_server.domain.limits import ITEMS_PER_ACK
from jobwire_server.store import sessions as session_store
from jobwire_server.store import settling as store
from jobwire_server.store.database import Database

from .group_commit import GroupCommit
from .messages import Ack, AckAnswer
from .session import Session
from .session_book import SessionBook
from .terms import Stats

_SIGNAL_BYTES = 7_000
"""For the handles in one signal: a notification holds 8,000 bytes."""

Items = Sequence[AckItem]


class Acker:
    """Applies Acks.

    `on_changed(queue, deliveries)` is called after the commit with what changed; `on_back(queue, pause)` when a job was
    given back; `on_letters()` when dead letters are to be carried over; `tell_replica` when a session's owner is
    another replica.
    """

    def __init__(
        self,
        database: Database,
        replica: UUID,
        book: SessionBook,
        stats: Stats,
        *,
        on_changed: Callable[[str, list[Handle]], None],
        on_back: Callable[[str, timedelta], None],
        on_letters: Callable[[], None],
        tell_replica: Callable[..., None],
    ) -> None:
        self._database = database
        self._replica = replica
        self._book = book
        self._stats = stats
        self._on_changed = on_changed
        self._on_back = on_back
        self._on_letters = on_letters
        self._tell_replica = tell_replica
        self._line: GroupCommit[Items, list[AckResult]] = GroupCommit(self._settle, _fits)

    async def ack(self, ack: Ack) -> AckAnswer:
        """Applies one Ack call."""
        answered = await self._apply_in_order(ack.items)
        settled = [handle for handle, outcome in ack.items if not isinstance(outcome, Extend)]
        if ack.session_id is not None:
            return AckAnswer(answered, await self._report(ack, ack.session_id, settled))
        # Acknowledged by hand, without naming the session: it gets its credits back all the same.
        for session_id, mine in (await store.sessions_of(self._database, settled)).items():
            await self._report(ack, session_id, mine)
        return AckAnswer(answered, session_alive=True)

    async def _apply_in_order(self, items: Items) -> list[AckResult]:
        if len({handle for handle, _ in items}) == len(items):
            return await self._line.submit(items) if items else []
        results: dict[int, AckResult] = {}
        for wave in _waves(items):
            answers = await self._line.submit([items[place] for place in wave])
            results |= zip(wave, answers, strict=True)
        return [results[place] for place in range(len(items))]

    async def _report(self, ack: Ack, session_id: UUID, settled: Sequence[Handle]) -> bool:
        """Tells the session's owner of the sign of life, the credits that return and those asked for.

        Returns whether the session lives.
        """
        if ack.close_session:
            return await self._book.close(session_id)
        self._book.settled_meanwhile(session_id, settled)
        session, owner = self._book.get(session_id), self._replica
        if session is None or session.stream is None:
            # It may go on elsewhere already; who owns it after this Ack's commit is who needs to know.
            found = await self._owner(session_id)
            if found is None:
                return False
            owner = found
            # It may have been resumed here meanwhile, too.
            session = self._book.get(session_id) if owner == self._replica else None
        if session is not None:
            self._apply(session, ack.last_sequence, ack.max_in_flight, settled)
            return True
        for part in _parts([str(handle) for handle in settled]):
            self._tell_replica(
                owner,
                kind="acked",
                session=session_id,
                last_sequence=ack.last_sequence,
                max_in_flight=ack.max_in_flight,
                settled=part,
            )
        return True

    def _apply(
        self, session: Session, last_sequence: int, max_in_flight: int | None, settled: Iterable[Handle]
    ) -> None:
        session.alive(last_sequence)
        if max_in_flight is not None:
            self._book.set_credits(session, max_in_flight)
        self._book.settled(session, settled)

    async def _owner(self, session_id: UUID) -> UUID | None:
        return await session_store.find_owner(self._database, session_id)

    def acked_elsewhere(
        self, session_id: UUID, last_sequence: int, max_in_flight: int | None, settled: Iterable[Handle]
    ) -> None:
        """Another replica served an Ack for a session of ours."""
        session = self._book.get(session_id)
        if session is not None:
            self._apply(session, last_sequence, max_in_flight, settled)

    async def _settle(self, calls: Sequence[Items]) -> list[list[AckResult]]:
        items = [item for call in calls for item in call]
        outcome = await store.settle(self._database, items)
        changed: dict[bytes, list[Handle]] = defaultdict(list)
        kinds: Counter[type | AckStatus] = Counter()
        for (handle, said), result in zip(items, outcome.results, strict=True):
            status = result.status
            if status is AckStatus.APPLIED or status is AckStatus.CANCELLED:
                changed[handle.queue_bytes].append(handle)
                kinds[type(said)] += 1
            else:
                kinds[status] += 1
        for kind, count in kinds.items():
            name = kind.name if isinstance(kind, AckStatus) else kind.__name__
            self._stats[f"acked.{name.lower()}"] += count
        for handles in changed.values():
            self._on_changed(handles[0].queue, handles)
        for queue, pause in outcome.back_in.items():
            self._on_back(queue, pause)
        if outcome.letters:
            self._on_letters()
        results = iter(outcome.results)
        return [[next(results) for _ in call] for call in calls]


def _fits(group: Sequence[Items], call: Items) -> bool:
    """A statement holds so many items, and each handle once.

    What a later call says of it must see what the earlier one did.
    """
    if sum(map(len, group)) + len(call) > ITEMS_PER_ACK:
        return False
    named = {item.handle for items in group for item in items}
    return not any(item.handle in named for item in call)


def _waves(items: Sequence[AckItem]) -> list[list[int]]:
    """The places of the items in waves that name each handle once, so that what is said of one is applied in order."""
    waves: list[list[int]] = []
    said: Counter[Handle] = Counter()
    for place, item in enumerate(items):
        turn = said[item.handle]
        said[item.handle] += 1
        if turn == len(waves):
            waves.append([])
        waves[turn].append(place)
    return waves


def _parts(handles: Sequence[str]) -> list[list[str]]:
    """The handles in parts that a signal holds; one part, if there are none."""
    parts: list[list[str]] = [[]]
    size = 0
    for handle in handles:
        size += len(handle) + 4
        if size > _SIGNAL_BYTES:
            parts.append([])
            size = len(handle) + 4
        parts[-1].append(handle)
    return parts

"""The faults of a run, by whom they hit.

A fault has an aftermath: connections are made again, sessions resumed, a claim rolled back. It can explain what happens
until shortly after it is over. An orderly restart of a server explains nothing: the promise is that nobody notices it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

from tests.chaos.history import Fault

AFTERMATH = 5.0
"""How long after its end a fault may still be the cause of something, in seconds."""

RESTART, RESTORE = "restart", "restore"
_CLIENTS = ("worker-", "publisher-", "operator-", "rogue-")


class Timeline:
    """Faults in the order of their beginning."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = sorted(faults, key=lambda fault: fault.t)
        self._begins = [fault.t for fault in self._faults]
        self._longest = max((fault.until - fault.t for fault in self._faults), default=0.0)

    def within(self, start: float, end: float, aftermath: float = AFTERMATH) -> list[Fault]:
        """Those that were under way, or just over, at some time between `start` and `end`; the latest first."""
        found = []
        for place in range(bisect_right(self._begins, end) - 1, -1, -1):
            fault = self._faults[place]
            if fault.t < start - aftermath - self._longest:
                break
            if fault.until + aftermath >= start:
                found.append(fault)
        return found


class Disturbances:
    """What was done to whom. `clients` are the processes that took part as clients."""

    def __init__(self, faults: Iterable[Fault], clients: Iterable[str]) -> None:
        clients, all_faults = set(clients), list(faults)
        mine: dict[str, list[Fault]] = {}
        service, restarts, database = [], [], []
        for fault in all_faults:
            if fault.victim in clients or fault.victim.startswith(_CLIENTS):
                mine.setdefault(fault.victim, []).append(fault)
            elif fault.what == RESTART and fault.victim.startswith("server"):
                restarts.append(fault)
            else:
                service.append(fault)
                if "postgres" in fault.victim:
                    database.append(fault)
        self._clients = {client: Timeline(faults) for client, faults in mine.items()}
        self._nothing = Timeline(())
        self.service = Timeline(service)
        """Servers and the database, and the links between them; orderly restarts left out."""
        self.restarts = Timeline(restarts)
        self.database = Timeline(database)
        self._restores = [fault for fault in all_faults if fault.what == RESTORE]

    def of_client(self, name: str) -> Timeline:
        """What was done to a client's process or link."""
        return self._clients.get(name, self._nothing)

    def undone(self, t: float) -> bool:
        """Whether a restore took back what was written at `t`: it lasts from the backup to the database's return."""
        return any(fault.t <= t <= fault.until for fault in self._restores)

    def restored(self, start: float, end: float) -> bool:
        """Whether the database came back from a backup between `start` and `end`."""
        return any(start <= fault.until and fault.t <= end for fault in self._restores)


def name_of(fault: Fault) -> str:
    """A fault's name without the victim's number, such as `kill worker`."""
    return f"{fault.what} {re.sub(r'-[0-9]+', '', fault.victim)}"

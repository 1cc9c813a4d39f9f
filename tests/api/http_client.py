"""HTTP as a probe or Prometheus speaks it."""

from __future__ import annotations

import asyncio
import http.client
import json
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from jobwire_server.app import Server


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def get(server: Server, path: str, method: str = "GET") -> Answer:
    """One request, on a connection of its own."""

    def ask() -> Answer:
        connection = http.client.HTTPConnection(server.http_address, timeout=20)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read().decode())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


class Metrics:
    """What /metrics says, parsed as Prometheus does."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """A sample's value; 0 if it has never been counted."""
        return self._samples.get((name, frozenset(labels.items())), 0.0)


async def metrics(server: Server) -> Metrics:
    """The metrics as they are now."""
    answer = await get(server, "/metrics")
    assert answer.status == 200
    return Metrics(answer.body)

"""All scenarios, in the order of the table."""

from tests.conformance.scenarios import publishing, delivery, leases, interruptions, storms, errors, scripted  # noqa: F401, I001 - in this order
from tests.conformance.scenario import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "Scenario"]

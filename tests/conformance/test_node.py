"""The Node client passes what it claims."""

from tests.conformance.playing import conforms

test_node = conforms("node")

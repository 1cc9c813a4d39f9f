"""The Python client passes what it claims."""

from tests.conformance.playing import conforms

test_python = conforms("python")

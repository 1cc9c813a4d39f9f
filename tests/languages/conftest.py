"""What the tests of every language's client share: the server as a process."""

from tests.system.conftest import server

__all__ = ["server"]

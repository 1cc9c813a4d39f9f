"""What the clients' own tests are given: a server, and certificates for TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.certificates import Authority
from tests.system.conftest import server

__all__ = ["server"]


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with a server's `key.pem` and `cert.pem` for localhost, and the `ca.pem` of who signed it."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority = Authority("Jobwire test authority")
    key, certificate = authority.server("localhost")
    for name, pem in {"key.pem": key, "cert.pem": certificate, "ca.pem": authority.pem}.items():
        (folder / name).write_bytes(pem)
    return folder

"""What all tests of the workers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobwire_workers.excel_parse import open_store
from tests.workers.buckets import Buckets
from tests.workers.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, open_store(str(tmp_path)))


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    """An S3 server, with the environment that makes `s3://…` lead to it."""
    server = Buckets()
    monkeypatch.setenv("AWS_ENDPOINT", server.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", Buckets.KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the test")
    yield server
    server.close()

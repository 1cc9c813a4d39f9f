"""The Node client's own tests, in its language, against the real server."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conformance.clients import CLIENTS
from tests.conftest import Postgres
from tests.system.conftest import ServerProcess

_PATIENCE = 900.0
"""For all of them, in seconds; the package is installed in a fresh folder for one of them."""


@pytest.mark.timeout(_PATIENCE + 60)
def test_node(server: Callable[..., ServerProcess], postgres: Postgres, certificates: Path) -> None:
    client = CLIENTS["node"]
    if client.missing:
        pytest.skip(client.missing)
    database = conninfo_to_dict(postgres.dsn)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")} | {
        "JOBWIRE_SERVER": server().address,
        "TEST_CERTIFICATES": str(certificates),
        "TEST_POSTGRES": f"{database['host']}:{database.get('port') or 5432}",
    }
    done = subprocess.run(
        ["npm", "test"],
        cwd=client.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\bpass [1-9]", done.stdout) and re.search(r"\bskipped 0\b", done.stdout), done.stdout

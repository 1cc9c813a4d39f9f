"""The store of two replicas and a small model of it go the same way, whatever is done to them in whichever order."""

from __future__ import annotations

import os

import pytest

from tests.conftest import Postgres

from .machine import run
from .play import Theatre

# Taken out of the environment: a server that another test starts as a process would refuse to know it.
STEPS = int(os.environ.pop("JOBWIRE_MODEL_STEPS", "20000"))


@pytest.mark.timeout(300 + STEPS // 50)
def test_the_store_does_what_the_model_does(postgres: Postgres, schema: str) -> None:
    with Theatre.opened(postgres.served, schema) as theatre:
        run(theatre, STEPS)
        print(dict(sorted(theatre.kinds.items())))
        assert theatre.steps >= STEPS

"""The store of two replicas and a small model of it go the same way, whatever is done to them in whichever order.

`JOBWIRE_MODEL_STEPS` sets how many steps are done and compared (default 12,000); `make model` does it by itself.
"""

from __future__ import annotations

import os

import pytest

from jobwire_server.domain.transitions import TABLE
from tests.conftest import Postgres

from .machine import NOT_PLAYED, run
from .play import Theatre

# Taken out of the environment: a server that another test starts as a process would refuse to know it.
STEPS = int(os.environ.pop("JOBWIRE_MODEL_STEPS", "12000"))


@pytest.mark.timeout(600 + STEPS // 50)
def test_the_store_does_what_the_model_does(postgres: Postgres, schema: str) -> None:
    with Theatre.opened(postgres.served, schema) as theatre:
        run(theatre, STEPS)
    assert theatre.steps >= STEPS
    # In so many steps most rows of the table of transitions are taken, whatever the dice; tests/store walks them all.
    if STEPS >= 12_000:
        missed = {row for row in TABLE if row.event not in NOT_PLAYED} - theatre.walked.keys()
        assert len(missed) <= len(TABLE) // 4, missed

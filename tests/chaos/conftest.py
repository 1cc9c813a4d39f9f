"""For the tests of the checker."""

from __future__ import annotations

import pytest

from tests.chaos.story import Story


@pytest.fixture
def story() -> Story:
    return Story()

"""Settings for commands: a mistake in them ends the command with its explanation."""

from __future__ import annotations

import os
from typing import Any

from jobwire_server.cli.ending import Code, fail
from jobwire_server.settings import Settings, SettingsError, load_settings


def settings_or_fail(**given: Any) -> Settings:
    """The settings that the environment makes; `given` fields win over it."""
    try:
        return load_settings(**given)
    except SettingsError as error:
        fail(f"the settings are not right:\n{error}", Code.USAGE)


def database_is_set() -> bool:
    """Whether the environment names a database."""
    return any(os.environ.get(name) for name in ("JOBWIRE_DATABASE_URL", "DATABASE_URL"))

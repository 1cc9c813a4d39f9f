"""What can be set, all of it in the environment: `JOBWIRE_…` and, for the database, `DATABASE_URL` as well.

Always holds: a Settings object is complete, checked and frozen; a mistake is reported with the variable's name and the
rule and never with a secret; a misspelt `JOBWIRE_…` variable stops the start instead of being ignored.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "JOBWIRE_"

_CLIENT_VARIABLES = frozenset({"JOBWIRE_SERVER", "JOBWIRE_ACTOR", "JOBWIRE_TOKEN", "JOBWIRE_CA_FILE"})
"""Ours too, but read by those who call the server."""

_DATABASE_VARIABLES = ("JOBWIRE_DATABASE_URL", "DATABASE_URL")

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(?P<port>[0-9]{1,5})")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_URL_PASSWORD = re.compile(r"(?<=://)([^/?#@]*?):[^/?#]*@")
_NAMED_PASSWORD = re.compile(r"((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]*)", re.IGNORECASE)


class SettingsError(ValueError):
    """The environment does not make valid settings; the message names each variable and what is wrong with it."""


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65_535:
        rule = "must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051, with a port up to 65535"
        raise PydanticCustomError("address", rule)
    return text


def _schema(name: str) -> str:
    if not _SCHEMA.fullmatch(name) or name.startswith("pg_"):
        raise PydanticCustomError(
            "schema", "must be a plain PostgreSQL name: a-z, 0-9 and _, up to 63 characters, no digit and no pg_ first"
        )
    return name


def _database_url(url: SecretStr) -> SecretStr:
    # Not above: the command line has commands without a database, and the driver takes a moment to load.
    from psycopg import ProgrammingError  # noqa: PLC0415
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    rule = "must be a PostgreSQL connection string, such as postgresql://user:password@host:5432/database"
    try:
        known = conninfo_to_dict(url.get_secret_value())
    except ProgrammingError as error:
        if unknown := re.search(r'invalid URI query parameter: "(\w{1,40})"', str(error)):
            rule += f"; PostgreSQL's own library knows no parameter {unknown[1]!r} (some ORMs do): leave it out here"
        raise PydanticCustomError("database_url", "{rule}", {"rule": rule}) from None
    if not known:
        raise PydanticCustomError("database_url", "{rule}", {"rule": rule})
    return url


def _named(path: object) -> object:
    # An empty path would be that of the folder; and left out by mistake, a file of tokens would leave the door open.
    if path == "":
        raise PydanticCustomError("path", "must be the path of a file; leave the variable out if there is none")
    return path


def _pair(key: Path | None, info: ValidationInfo) -> Path | None:
    if "tls_cert" in info.data and (key is None) != (info.data["tls_cert"] is None):
        raise PydanticCustomError("pair", "must be set together with JOBWIRE_TLS_CERT, both or none")
    return key


Address = Annotated[str, AfterValidator(_address)]
File = Annotated[Path, BeforeValidator(_named)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseSettings):
    """The settings of a server. Durations in seconds; docs/protocol.md says what the graces are for."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True
    )

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        validation_alias=AliasChoices(*_DATABASE_VARIABLES)
    )
    """Where the jobs are: a PostgreSQL of version 14 or newer, as URL or connection string."""
    schema_name: Annotated[str, AfterValidator(_schema)] = Field(default="jobwire", validation_alias="JOBWIRE_SCHEMA")
    """The database schema that holds the queue; made and migrated by the server."""
    pool_size: int = Field(default=4, ge=1, le=100)
    """The most connections in the pool; one more listens for signals."""
    migrate: bool = True
    """Whether a starting server migrates the schema. If not, it refuses to start until `jobwire migrate` has."""

    listen: Address = "127.0.0.1:50051"
    """Where gRPC is served. Port 0: a free one."""
    http_listen: Address = "127.0.0.1:8080"
    """Where /livez, /readyz and /metrics are served. Port 0: a free one."""

    tls_cert: File | None = None
    """The certificate of the gRPC port, with its chain, as a PEM file; read again when it is renewed. None: no TLS."""
    tls_key: Annotated[File | None, AfterValidator(_pair)] = Field(default=None, validate_default=True)
    """Its private key, as a PEM file without a password."""
    tokens_file: File | None = None
    """The tokens of those who may call, a line `NAME TOKEN` each; read again when it changes. None: everybody may."""

    create_queues: bool = True
    """Whether Publish and Subscribe create queues that do not exist."""
    max_sessions: int = Field(default=2_000, ge=1, le=100_000)
    """The most sessions that this replica serves at once."""
    max_publishing_mb: int = Field(default=32, ge=1, le=4_096)
    """How much the Publish calls under way may hold, in MiB; what is beyond is refused with RESOURCE_EXHAUSTED."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """How log lines look; auto: `console` on a terminal, else `json`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged."""

    owner_grace: Seconds = Field(default=60.0, ge=1, le=3_600)
    """After how long without a sign of its replica a session is given up by the others."""
    drain_grace: Seconds = Field(default=300.0, ge=0, le=3_600)
    """How long sessions wait for a resume when their replica has drained."""
    cancel_grace: Seconds = Field(default=30.0, ge=0, le=3_600)
    """How long a delivery that was told to stop keeps its lease."""
    renew_interval: Seconds = Field(default=5.0, ge=0.05, le=60)
    """How often a replica renews its sessions."""
    poll_interval: Seconds = Field(default=1.0, ge=0.05, le=60)
    """How often a replica looks for jobs that no signal told it of."""
    drain_timeout: Seconds = Field(default=20.0, ge=0, le=3_600)
    """How long a stop may take in all."""
    drain_linger: Seconds = Field(default=2.0, ge=0, le=60)
    """For how long calls are still served once the streams have been sent away, so that last Acks arrive."""

    @property
    def database(self) -> str:
        """The database's address without passwords, for people."""
        url = _URL_PASSWORD.sub(r"\1:***@", self.database_url.get_secret_value())
        return _NAMED_PASSWORD.sub(r"\1***", url)


def load_settings(**given: Any) -> Settings:
    """The settings that the environment makes; `given` fields win over it. Raises SettingsError."""
    if problems := _unknown_variables(os.environ):
        raise SettingsError("\n".join(problems))
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_explained(dict(problem)) for problem in error.errors())) from None


def variable_of(field: str) -> str:
    """The environment variable of a field."""
    alias = Settings.model_fields[field].validation_alias if field in Settings.model_fields else None
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias or PREFIX + field.upper())


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    known = {name.removeprefix(PREFIX) for name in _CLIENT_VARIABLES.union(map(variable_of, Settings.model_fields))}
    problems = []
    for variable in sorted(environment):
        name = variable.upper().removeprefix(PREFIX)
        if variable.upper().startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {PREFIX}{near[0]}?" if near else f"there are {PREFIX}… {', '.join(sorted(known))}"
            problems.append(f"{variable}: there is no such setting; {advice}")
    return problems


def _explained(problem: dict[str, Any]) -> str:
    where = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "missing":
        return (
            "DATABASE_URL (or JOBWIRE_DATABASE_URL) is not set: it names the database, such as "
            "postgresql://user:password@host:5432/database; `jobwire serve --embedded` brings one along"
        )
    rule = problem["msg"][:1].lower() + problem["msg"][1:]
    if where in {"database_url", *_DATABASE_VARIABLES}:
        used = next((name for name in _DATABASE_VARIABLES if name in os.environ), "database_url")
        return f"{used}: {rule}"
    return f"{where if where.isupper() else variable_of(where)}: {rule}; got {problem['input']!r:.80}"

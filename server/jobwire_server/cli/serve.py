"""`jobwire serve`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
import uvloop

from jobwire_server import __version__, logs
from jobwire_server.api.given_files import UnusableFile
from jobwire_server.app import SchemaMismatch, Server
from jobwire_server.app import serve as serve_until_signalled
from jobwire_server.cli.ending import Code, fail, say
from jobwire_server.cli.settings import database_is_set, settings_or_fail
from jobwire_server.embedded import EmbeddedPostgres, EmbeddedPostgresError
from jobwire_server.settings import Settings

app = typer.Typer()


@app.command()
def serve(
    *,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start a PostgreSQL of our own instead of using DATABASE_URL.")
    ] = False,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where the embedded PostgreSQL keeps its data.")] = Path(
        ".data/postgres"
    ),
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one stops at once.

    Everything is set in the environment: DATABASE_URL or JOBWIRE_DATABASE_URL, JOBWIRE_LISTEN, JOBWIRE_HTTP_LISTEN, …
    """
    if embedded and database_is_set():
        fail("--embedded and DATABASE_URL exclude each other: drop one of them", Code.USAGE)
    with _database(data if embedded else None) as url:
        settings = settings_or_fail(**({"database_url": url} if url else {}))
        logs.configure(settings.log_format, settings.log_level)
        shell = _psql(url, data) if url else ""
        try:
            uvloop.run(serve_until_signalled(settings, lambda server: _tell(settings, server, shell)))
        except UnusableFile as error:
            fail(f"the settings are not right:\n{error}", Code.USAGE)
        except (OSError, SchemaMismatch) as error:
            fail(str(error))


@contextmanager
def _database(data: Path | None) -> Iterator[str | None]:
    if data is None:
        yield None
        return
    say(f"Starting the embedded PostgreSQL in {data}")
    try:
        postgres = EmbeddedPostgres(data)
        postgres.start()
    except EmbeddedPostgresError as error:
        fail(str(error))
    with postgres:
        yield postgres.dsn


def _psql(url: str, data: Path) -> str:
    """A line to paste for a look at the embedded database; the password stays in its file."""
    address = urlsplit(url)
    password = f'PGPASSWORD="$(cat {data / "password"})"'
    return f"  {password} psql -h {address.hostname} -p {address.port} -U {address.username} postgres\n"


def _tell(settings: Settings, server: Server, shell: str) -> None:
    if not sys.stdout.isatty():
        return  # the log has it
    example = """'{"queue": "hello", "jobs": [{"data": "{\\"name\\": \\"world\\"}"}]}'"""
    options = "-plaintext" if settings.tls_cert is None else f"-cacert {settings.tls_cert}"
    call = options if settings.tokens_file is None else f"{options} -H 'authorization: Bearer TOKEN'"
    sys.stdout.write(
        f"""
  Jobwire {__version__} serves until Ctrl-C.

  gRPC     {server.address}
  health   http://{server.http_address}/livez   http://{server.http_address}/readyz
  metrics  http://{server.http_address}/metrics

  grpcurl {options} {server.address} list
  grpcurl {call} -d {example} {server.address} jobwire.v1.QueueService/Publish
{shell}
"""
    )
    sys.stdout.flush()

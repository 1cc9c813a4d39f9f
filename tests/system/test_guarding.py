"""A server process that speaks TLS and wants tokens, and all that calls it in Python: clients, worker, commands."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

import jobwire
from jobwire import Client, Job, JobState, Unauthenticated, Unavailable, Worker
from jobwire_server import __version__
from tests.certificates import new_certificate
from tests.system.conftest import PATIENCE, ServerProcess, until

TOKEN, NEXT = "ops-s3cret-0123456789", "next-s3cret-0123456789"


@dataclass
class Guarded:
    """The server and its files, which are replaced as Kubernetes replaces a secret."""

    folder: Path
    server: ServerProcess

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def tls(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials((self.folder / "tls.crt").read_bytes())

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of the command line, with no setting but those given."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
        return subprocess.run(
            [sys.executable, "-m", "jobwire_server", *arguments],
            env={**clean, "JOBWIRE_SERVER": self.address, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def shown(self) -> str:
        """The certificate that a new connection is shown."""
        host, port = self.address.split(":")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            return ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True) or b"")


def put(folder: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        new = folder / f"{name}.new"
        new.write_bytes(content if isinstance(content, bytes) else content.encode())
        new.rename(folder / name.replace("_", "."))


@pytest.fixture
def guarded(server: Callable[..., ServerProcess], tmp_path: Path) -> Guarded:
    key, certificate = new_certificate()
    put(tmp_path, tls_crt=certificate, tls_key=key, tokens=f"ops {TOKEN}\n")
    files = {"tls_cert": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key", "tokens_file": tmp_path / "tokens"}
    return Guarded(tmp_path, server(**files, log_level="debug"))


async def test_everything_in_python_brings_a_token_over_tls(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "jobwire")
    worker = Worker(guarded.address, tls=guarded.tls, token=lambda: TOKEN, heartbeat_interval=1)

    @worker.handler("work")
    async def handle(job: Job) -> None:
        await job.progress(0.5)

    async with worker, Client(guarded.address, tls=guarded.tls, token=TOKEN) as client:
        first = await client.publish("work", 1)
        assert (await client.wait(first.job_id, timeout=PATIENCE)).state is JobState.COMPLETED
        assert [queue.name for queue in await client.admin.list_queues()] == ["work"]
    assert f"server {__version__}" in caplog.text

    def threads() -> None:
        with jobwire.sync.Client(guarded.address, tls=guarded.tls, token=TOKEN) as client:
            assert client.publish("work", 2).created
            assert client.admin.get_queue("work").name == "work"
        stored = jobwire.publish(guarded.address, "work", 3, tls=guarded.tls, token=TOKEN)
        assert jobwire.get_job(guarded.address, stored.job_id, tls=guarded.tls, token=TOKEN).data == 3

    await asyncio.to_thread(threads)
    assert "s3cret" not in caplog.text + guarded.server.text()


async def test_without_a_token_or_with_another_one_the_error_says_so_at_once(guarded: Guarded) -> None:
    for token in (None, NEXT):
        async with Client(guarded.address, tls=guarded.tls, token=token) as client:
            with pytest.raises(Unauthenticated, match="token") as caught:
                await client.publish("work", 1)
            assert caught.value.reason == "UNAUTHENTICATED"
        worker = Worker(guarded.address, tls=guarded.tls, token=token)
        worker.handler("work", run_in="thread")(print)
        with pytest.raises(Unauthenticated, match="token"):
            await asyncio.wait_for(worker.run(), PATIENCE)
    with (
        jobwire.sync.Client(guarded.address, tls=guarded.tls) as client,
        pytest.raises(Unauthenticated, match="wants a token"),
    ):
        client.publish("work", 1)
    async with Client(guarded.address, token=TOKEN, timeout=3) as client:
        with pytest.raises(Unavailable, match="are address and TLS right"):
            await client.publish("work", 1)


def test_the_command_line_reads_both_from_the_environment(guarded: Guarded) -> None:
    access = {"JOBWIRE_TOKEN": TOKEN, "JOBWIRE_CA_FILE": str(guarded.folder / "tls.crt")}
    done = guarded.run("queues", "create", "mail", **access)
    assert done.returncode == 0, done.stderr
    assert "(token ops)" in guarded.run("actions", **access).stdout
    done = guarded.run("queues", "list", **(access | {"JOBWIRE_TOKEN": NEXT}))
    assert done.returncode != 0 and "does not know the token" in done.stderr and "s3cret" not in done.stderr
    done = guarded.run("work", "mail", "--", "true", **(access | {"JOBWIRE_TOKEN": ""}))
    assert done.returncode != 0 and "wants a token" in done.stderr
    done = guarded.run("queues", "list", **(access | {"JOBWIRE_TOKEN": "two words"}))
    assert done.returncode == 2 and "JOBWIRE_TOKEN: a token must be a word" in done.stderr
    done = guarded.run("queues", "list", **(access | {"JOBWIRE_CA_FILE": "/none"}))
    assert done.returncode == 2 and "JOBWIRE_CA_FILE: cannot read /none: No such file" in done.stderr


async def test_tokens_change_while_a_worker_works(guarded: Guarded) -> None:
    """The file has the next token before callers have it, and loses the old one after that."""
    now = [TOKEN]
    begun, go_on = asyncio.Event(), asyncio.Event()
    worker = Worker(guarded.address, tls=guarded.tls, token=lambda: now[0], heartbeat_interval=1)

    @worker.handler("work")
    async def handle(job: Job) -> str:
        begun.set()
        await go_on.wait()
        return "done"

    async with worker, Client(guarded.address, tls=guarded.tls, token=lambda: now[0]) as client:
        published = await client.publish("work", 1)
        await asyncio.wait_for(begun.wait(), PATIENCE)
        put(guarded.folder, tokens=f"ops {TOKEN}\nops {NEXT}\n")
        await until(lambda: "a file was replaced, and is in use" in guarded.server.text())
        now[0] = NEXT
        put(guarded.folder, tokens=f"ops {NEXT}\n")
        await until(lambda: guarded.server.text().count("a file was replaced, and is in use") == 2)
        go_on.set()
        job = await client.wait(published.job_id, timeout=PATIENCE)
        assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    assert "s3cret" not in guarded.server.text()


async def test_a_renewed_certificate_is_shown_without_a_restart(guarded: Guarded) -> None:
    old, old_tls = (guarded.folder / "tls.crt").read_text(), guarded.tls
    assert guarded.shown() == old
    async with Client(guarded.address, tls=old_tls, token=TOKEN) as client:
        await client.publish("work", 1)
        key, certificate = new_certificate()
        # One after the other, as tools do: what makes no pair meanwhile is not taken up.
        put(guarded.folder, tls_crt=certificate)
        await asyncio.sleep(1.1)
        assert guarded.shown() == old
        put(guarded.folder, tls_key=key)
        await until(lambda: guarded.shown() == certificate.decode())
        assert (await client.publish("work", 2)).created, "a connection that was made stays"
    async with Client(guarded.address, tls=guarded.tls, token=TOKEN) as client:
        assert (await client.publish("work", 3)).created
    errors = [event for event in guarded.server.events() if event["level"] == "error"]
    assert [event["error"].split(":")[0] for event in errors] == ["JOBWIRE_TLS_CERT and JOBWIRE_TLS_KEY"]


def test_files_that_cannot_be_used_end_the_start_with_what_to_do(
    server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    put(tmp_path, tls_crt=new_certificate()[1], tls_key=new_certificate()[0], tokens="ops s3cret\n")
    pair = {"tls_cert": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key"}
    for settings, said in (
        (pair, "JOBWIRE_TLS_CERT and JOBWIRE_TLS_KEY: "),
        ({"tls_key": tmp_path / "tls.key"}, "JOBWIRE_TLS_KEY: must be set together with JOBWIRE_TLS_CERT"),
        ({"tokens_file": tmp_path / "tokens"}, "JOBWIRE_TOKENS_FILE: line 1 of "),
    ):
        process = server(wait=False, **settings)
        assert process.ends() == 2, process.text()
        assert f"the settings are not right:\n{said}" in process.text()
        assert "Traceback" not in process.text() and "s3cret" not in process.text()

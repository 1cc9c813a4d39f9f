"""The example backend is started, used and stopped as its users do it: by npm and over HTTP, beside the real server."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.conformance.certificates import Authority
from tests.docs.pages import page_shell
from tests.examples.backend import BLOCKS, END, EXAMPLE, INSTALL, AppDatabase, Backend, form, wait_for
from tests.workers.workbooks import xlsx

pytestmark = pytest.mark.timeout(600)

SLOW = {"JUDGE_SECONDS": "3", "STOP_GRACE": "0"}
"""A worker that takes so long for each part of a screening, and gives back at once what it cannot finish."""


async def test_the_page_does_what_it_says(built: None, app: AppDatabase, tmp_path: Path) -> None:
    storage, scratch = tmp_path / "storage", tmp_path / "shell"
    scratch.mkdir()
    environment = {"DATABASE_URL": app.url, "STORAGE": str(storage)}
    blocks = [block for block in BLOCKS if block != INSTALL]  # which `built` has run
    assert sum(block.runs for block in blocks) >= 8
    async with page_shell(
        app.admin, EXAMPLE, scratch=scratch, environment=environment, free=["127.0.0.1:3000"]
    ) as shell:
        await asyncio.to_thread(app.grant)
        for block in blocks:
            await asyncio.to_thread(shell.check, block)
        # Its last command stops what it started, in order, before the test does.
        await asyncio.to_thread(wait_for, lambda: not any(map(lives, shell.groups)), lambda: "something runs on")


def lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_deploy_in_the_middle_of_a_screening_costs_nothing(backend: Backend) -> None:
    backend.start()
    first = backend.worker(**SLOW)
    answer = backend.screening("large", 150)
    assert answer.status == 202
    job_id, screening_id = answer.json["jobId"], answer.json["screeningId"]
    wait_for(lambda: backend.job(job_id)["progress"] > 0, lambda: backend.job(job_id))
    first.terminate()
    assert first.ends() == 0
    second = backend.worker()
    assert backend.finished(job_id)["output"] == {"items": 150, "include": 75, "exclude": 75, "unsure": 0}
    decisions = backend.ask("GET", f"/screenings/{screening_id}").json["decisions"]
    assert [decision["item"] for decision in decisions] == list(range(150))
    assert {decision["verdict"] for decision in decisions[::2]} == {"include"}
    attempts = [attempt for (attempt,) in backend.database.run("SELECT attempt FROM decision ORDER BY item")]
    assert set(attempts) == {1, 2}
    assert attempts == sorted(attempts), "the second run began where the first one had stopped"
    second.terminate()
    assert second.ends() == 0


def test_a_screening_that_is_cancelled_stops(backend: Backend) -> None:
    backend.start()
    worker = backend.worker(JUDGE_SECONDS="3")
    answer = backend.screening("regretted", 150)
    job_id, screening_id = answer.json["jobId"], answer.json["screeningId"]
    wait_for(lambda: backend.job(job_id)["progress"] > 0, lambda: backend.job(job_id))
    cancelled = backend.ask("DELETE", f"/jobs/{job_id}")
    assert (cancelled.status, cancelled.json["note"]) in ((202, "being cancelled"), (200, "")), cancelled
    assert backend.finished(job_id)["state"] == "cancelled"
    again = backend.ask("DELETE", f"/jobs/{job_id}")
    assert (again.status, again.json["state"]) == (200, "cancelled")
    # The worker lives, and judges no more of it: it has nothing to finish when it is asked to stop.
    worker.terminate()
    assert worker.ends() == 0
    decisions = backend.ask("GET", f"/screenings/{screening_id}").json["decisions"]
    assert 0 < len(decisions) < 150


def test_a_row_and_its_job_are_there_together_or_not_at_all(backend: Backend) -> None:
    backend.start()
    assert backend.screening("once", 50).status == 202
    again = backend.screening("once", 50)
    assert (again.status, again.json) == (409, {"error": 'there is a screening named "once" already'})
    rows = backend.database.run("SELECT job_id FROM screening")
    jobs = backend.database.run("SELECT id FROM jobwire.job")
    assert len(jobs) == 1 and rows == jobs


def test_few_items_are_screened_by_the_same_core_without_a_job(backend: Backend) -> None:
    backend.start()
    few = backend.screening("few", 49)
    assert few.status == 200
    backend.worker()
    many = backend.screening("many", 50)
    assert many.status == 202
    assert backend.finished(many.json["jobId"])["state"] == "completed"
    stored = backend.ask("GET", f"/screenings/{many.json['screeningId']}").json
    assert stored["decisions"][:49] == few.json["decisions"]
    assert backend.database.run("SELECT count(*) FROM jobwire.job") == [(1,)]


only_pg = pytest.mark.parametrize("backend", ["pg"], indirect=True)


@only_pg
def test_while_jobwire_is_away(backend: Backend) -> None:
    backend.start()
    backend.server.stop()
    upload = backend.upload(xlsx([["a"], [1]]))
    assert (upload.status, upload.headers["retry-after"]) == (503, "5")
    assert list((backend.storage / "uploads").iterdir()) == []
    # The transaction needs the database only.
    answer = backend.screening("patient", 60)
    assert answer.status == 202
    assert backend.ask("GET", f"/jobs/{answer.json['jobId']}").status == 503
    backend.server.start()
    backend.worker()
    assert backend.finished(answer.json["jobId"])["state"] == "completed"


@only_pg
def test_a_server_that_is_stopped_finishes_what_it_has(backend: Backend) -> None:
    server = backend.start()
    job_id = backend.upload(xlsx([["a"], [1]])).json["jobId"]
    watching = connect(backend)
    watching.sendall(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    read_until(watching, b'"state":"created"')
    uploading = half_an_upload(backend, xlsx([["a"], [2]]))
    server.terminate()
    # The stream ends, and nobody is let in any more; but the upload is taken to its end.
    read_to_the_end(watching)
    wait_for(lambda: refused(backend), server.text)
    assert server.running.poll() is None
    uploading.sendall(END)
    assert read_to_the_end(uploading).startswith(b"HTTP/1.1 202")
    assert server.ends() == 0
    assert len(list((backend.storage / "uploads").glob("*.xlsx"))) == 2
    assert backend.database.run("SELECT count(*) FROM jobwire.job") == [(2,)]


BAD_UPLOADS = [
    (*form(b""), "not an .xlsx workbook"),
    (*form(b"name;age"), "not an .xlsx workbook"),
    (b"{}", {"content-type": "application/json"}, "as a form with one file"),
    (b"--edge--\r\n", {"content-type": "multipart/form-data; boundary=edge"}, "has no file"),
]


@only_pg
def test_bad_uploads_are_refused_and_leave_nothing(backend: Backend) -> None:
    backend.start()
    for body, headers, says in BAD_UPLOADS:
        answer = backend.ask("POST", "/excel", body, headers)
        assert (answer.status, says in answer.json["error"]) == (400, True), answer
    assert backend.ask("POST", "/excel", b"PK\3\4", {"content-type": "application/zip"}).status == 415
    assert backend.ask("GET", "/jobs/not-an-id").status == 400
    half_an_upload(backend, xlsx([["a"], [1]])).close()
    wait_for(lambda: not list((backend.storage / "uploads").glob("*.part")), lambda: "half an upload is kept")
    assert list((backend.storage / "uploads").iterdir()) == []
    assert backend.database.run("SELECT count(*) FROM jobwire.job") == [(0,)]


@only_pg
def test_a_job_that_waits_is_cancelled_at_once(backend: Backend) -> None:
    backend.start()
    job_id = backend.upload(xlsx([["a"], [1]])).json["jobId"]
    cancelled = backend.ask("DELETE", f"/jobs/{job_id}")
    assert (cancelled.status, cancelled.json["state"]) == (200, "cancelled")
    assert backend.ask("DELETE", "/jobs/01890000-0000-7000-8000-000000000000").status == 404
    assert backend.ask("DELETE", "/jobs/not-an-id").status == 400


@only_pg
def test_a_failed_job_says_why_to_the_one_who_uploaded(backend: Backend) -> None:
    backend.start()
    with backend.excel_worker():
        job = backend.finished(backend.upload(b"PK\3\4").json["jobId"])
        assert job["state"] == "failed" and "damaged or was not fully uploaded" in job["error"]
        parsed = backend.finished(backend.upload(xlsx([["a", "b"], [1, "x"]])).json["jobId"])
        assert (parsed["state"], parsed["output"]["rows"], parsed["output"]["columns"]) == ("completed", 1, 2)
        assert (backend.storage / parsed["output"]["clean_key"]).is_file()


@only_pg
def test_what_broke_inside_is_not_told_to_users(backend: Backend) -> None:
    backend.start()
    backend.worker()
    publish = "SELECT jobwire.publish('screenings', '{\"screening_id\": \"no uuid\"}', '{\"retry_limit\": 0}')"
    [(job_id,)] = backend.database.run(publish)
    job = backend.finished(job_id)
    assert (job["state"], job["error"]) == ("failed", "It failed for a reason on our side.")
    [(said,)] = backend.database.run("SELECT errors::text FROM jobwire.job")
    assert "invalid input syntax for type uuid" in said


def test_over_tls_with_a_token(secure: Backend) -> None:
    secure.start()
    secure.worker()
    screened = secure.screening("in secret", 60).json["jobId"]
    assert secure.finished(screened)["output"] == {"items": 60, "include": 30, "exclude": 30, "unsure": 0}
    with secure.excel_worker():
        job_id = secure.upload(xlsx([["a"], [1]])).json["jobId"]
        events = secure.ask("GET", f"/jobs/{job_id}/events").body.decode()
        assert '"state":"completed"' in events.splitlines()[-2]
    waiting = secure.upload(xlsx([["a"], [1]])).json["jobId"]
    assert secure.ask("DELETE", f"/jobs/{waiting}").json["state"] == "cancelled"


@pytest.mark.parametrize(
    ("environment", "status", "says"),
    [
        ({"JOBWIRE_TOKEN": "another-token-than-that"}, 500, "UNAUTHENTICATED"),
        ({"JOBWIRE_TOKEN": ""}, 500, "UNAUTHENTICATED"),
        ({"JOBWIRE_CA_FILE": "another"}, 503, "are address and TLS right"),
        ({"JOBWIRE_CA_FILE": ""}, 503, "are address and TLS right"),
    ],
)
def test_with_a_wrong_token_or_the_wrong_authority_nothing_is_taken(
    secure: Backend, environment: dict[str, str], status: int, says: str
) -> None:
    if environment.get("JOBWIRE_CA_FILE"):
        (secure.folder / "another").write_bytes(Authority("another authority").pem)
        environment = {"JOBWIRE_CA_FILE": str(secure.folder / "another")}
    server = secure.start(**environment)
    assert secure.upload(xlsx([["a"], [1]])).status == status
    server.says(says)
    assert list((secure.storage / "uploads").iterdir()) == []
    assert secure.database.run("SELECT count(*) FROM jobwire.job") == [(0,)]


def half_an_upload(backend: Backend, content: bytes) -> socket.socket:
    """A connection over which a form has been sent all but its END; it is on its way to the disk."""
    body, headers = form(content)
    connection = connect(backend)
    head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "content-length": len(body)}.items())
    connection.sendall(f"POST /excel HTTP/1.1\r\nHost: a\r\n{head}\r\n".encode() + body[: -len(END)])
    wait_for(lambda: list((backend.storage / "uploads").glob("*.part")), lambda: "nothing of it has come")
    return connection


def connect(backend: Backend) -> socket.socket:
    host, _, port = backend.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def refused(backend: Backend) -> bool:
    try:
        connect(backend).close()
    except ConnectionRefusedError:
        return True
    return False


def read_until(connection: socket.socket, words: bytes) -> None:
    received = b""
    while words not in received:
        part = connection.recv(65536)
        assert part, received
        received += part


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    with connection:
        while part := connection.recv(65536):
            received += part
    return received

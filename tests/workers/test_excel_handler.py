"""The queue's side: a job in, the result or the right kind of failure out."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from jobwire import FailForGood, Job, JobCancelled
from jobwire_workers.excel_parse import StorageError
from jobwire_workers.excel_parse.handler import ExcelParse
from tests.workers.desk import Desk
from tests.workers.workbooks import encrypted, xlsx

BOOK = xlsx([["a"], [1]])


def test_a_job_is_answered_with_the_result_of_the_same_parse(desk: Desk) -> None:
    expected = desk.parse(BOOK, "in/book.xlsx").to_json()
    handler = pickle.loads(pickle.dumps(ExcelParse(str(desk.folder))))  # the way into a worker's process
    answer = handler(Job(data={"file_key": "in/book.xlsx"}))
    assert answer | {"seconds": None} == expected | {"seconds": None}


@pytest.mark.parametrize("data", [None, {}, [], "book.xlsx", {"file_key": None}, {"file_key": 7}, {"key": "book.xlsx"}])
def test_a_job_that_names_no_file_fails_for_good(desk: Desk, data: Any) -> None:
    with pytest.raises(FailForGood, match="its data needs a `file_key`"):
        ExcelParse(str(desk.folder))(Job(data=data))


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "There is no file 'a.xlsx'"), (b"x", "not a workbook but plain text"), (encrypted(BOOK), "by a password")],
)
def test_a_file_that_cannot_be_parsed_fails_for_good(desk: Desk, content: bytes | None, words: str) -> None:
    if content is not None:
        desk.put(content, "a.xlsx")
    with pytest.raises(FailForGood, match=words):
        ExcelParse(str(desk.folder))(Job(data={"file_key": "a.xlsx"}))


def test_a_storage_that_is_away_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        ExcelParse(str(tmp_path / "unmounted"))(Job(data={"file_key": "a.xlsx"}))


class Cancelled:
    """The link of a job that somebody cancelled."""

    cancelled = True

    def report(self, progress: object) -> None:
        pass

    def extend(self, seconds: float) -> Awaitable[None]:
        raise NotImplementedError


def test_a_cancelled_job_stops_and_writes_nothing(desk: Desk) -> None:
    key = desk.put(BOOK)
    with pytest.raises(JobCancelled):
        ExcelParse(str(desk.folder))(Job(data={"file_key": key}, link=Cancelled()))
    assert [path.name for path in desk.folder.iterdir()] == [key]


def run_worker(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobwire_workers.excel_parse", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--storage", "nowhere/at/all"], "There is no storage folder nowhere/at/all: create it"),
        (["--storage", "ftp://host/files"], "scheme 'ftp' is not known"),
        (["--storage", ".", "--concurrency", "0"], "0 is less than 1"),
    ],
)
def test_a_worker_refuses_to_start_on_a_bad_option(options: list[str], words: str) -> None:
    ended = run_worker("--server", "localhost:1", *options)
    assert ended.returncode == 2
    assert words in ended.stderr

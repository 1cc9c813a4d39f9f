"""Keys stay in their store, and a storage that fails is told apart from a file that is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwire_workers.excel_parse import InputError, StorageError, open_store, parse_workbook, read_clean
from jobwire_workers.excel_parse.storage import MAX_KEY, checked_key, read_object, write_object
from tests.workers.buckets import Buckets
from tests.workers.workbooks import xlsx

BOOK = xlsx([["a"], [1]])
UNSAFE_KEYS = ["/etc/passwd", "..", "../a", "a/../../b", "a/..", "./a", "a//b", "a/", "a\\b", "C:\\a", "a\nb", "a\0b"]


def silent(_fraction: float, _note: str) -> None:
    pass


@pytest.mark.parametrize("key", UNSAFE_KEYS)
def test_a_key_that_could_leave_the_store_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "a").write_bytes(BOOK)
    store = tmp_path / "store"
    store.mkdir()
    with pytest.raises(InputError, match="is not allowed: it must be a relative path"):
        parse_workbook(open_store(str(store)), key, silent)


@pytest.mark.parametrize("key", [None, "", 7, ["a.xlsx"], {"a": 1}])
def test_a_key_that_is_none_is_refused(key: object) -> None:
    with pytest.raises(InputError, match="its data needs a `file_key`"):
        checked_key(key)


def test_a_key_has_a_length() -> None:
    assert checked_key("k" * MAX_KEY)
    with pytest.raises(InputError, match="too long"):
        checked_key("é" * (MAX_KEY // 2 + 1))


@given(st.text(st.sampled_from("./\\a\0 é"), max_size=12))
def test_a_key_that_is_let_through_stays_below_its_root(key: str) -> None:
    try:
        path = Path("/srv/files") / checked_key(key)
    except InputError:
        return
    assert Path("/srv/files") in path.parents
    assert ".." not in path.parts


def test_a_folder_by_path_and_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my files é"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    for location in (str(folder), "my files é", folder.as_uri()):
        write_object(open_store(location), "x", location.encode())
        assert (folder / "x").read_text() == location


@pytest.mark.parametrize("location", ["ftp://host/a", "http://host/a", "memory:///"])
def test_a_storage_of_an_unknown_scheme_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match=r"give a folder, file:///… or s3://bucket/…"):
        open_store(location)


def test_a_folder_that_is_missing_is_the_storages_failure(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="There is no storage folder"):
        open_store(str(tmp_path / "nowhere"))


def test_a_folder_that_vanished_is_the_storages_failure(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    store = open_store(str(folder))
    shutil.rmtree(folder)
    with pytest.raises(StorageError, match="is gone: is it mounted"):
        parse_workbook(store, "a.xlsx", silent)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(BOOK)
    with pytest.raises(InputError, match="at most 100 can be read"):
        read_object(open_store(str(tmp_path)), "a.xlsx", max_bytes=100)


def test_writing_replaces_in_one_step_and_leaves_nothing_else(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    path = tmp_path / "a" / "b"
    old = b"old" * 5_000_000  # more than one part of an upload
    write_object(store, "a/b", old)
    with path.open("rb") as reader:
        write_object(store, "a/b", b"new")
        assert reader.read() == old  # the file that was open is still whole: it was replaced, not overwritten
    assert path.read_bytes() == b"new"
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_a_bucket(buckets: Buckets) -> None:
    buckets.objects["/bucket/in/报告.xlsx"] = BOOK
    store = open_store("s3://bucket/in")
    result = parse_workbook(store, "报告.xlsx", silent)
    assert set(buckets.objects) == {"/bucket/in/报告.xlsx", "/bucket/in/报告.xlsx.clean.parquet"}
    assert read_clean(store, result.clean_key).to_dict(as_series=False) == {"a": [1]}


def test_a_file_that_is_not_in_its_bucket(buckets: Buckets) -> None:
    buckets.objects["/bucket/other"] = b""
    with pytest.raises(InputError, match=r"There is no file 'a\.xlsx'"):
        parse_workbook(open_store("s3://bucket"), "a.xlsx", silent)


def test_a_bucket_that_does_not_exist_is_the_storages_failure(buckets: Buckets) -> None:
    assert not buckets.objects
    with pytest.raises(StorageError, match="The storage bucket does not exist"):
        parse_workbook(open_store("s3://bucket"), "a.xlsx", silent)


def test_a_refusal_is_the_storages_failure_and_tells_no_secrets(buckets: Buckets) -> None:
    buckets.refuses = True
    with pytest.raises(
        StorageError, match=r"failed at 'a\.xlsx': .*403 Forbidden \(SignatureDoesNotMatch\)$"
    ) as failure:
        parse_workbook(open_store("s3://bucket"), "a.xlsx", silent)
    assert Buckets.KEY_ID not in str(failure.value)
    assert failure.value.__suppress_context__


def test_a_store_that_does_not_answer_is_the_storages_failure(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    buckets.close()
    with pytest.raises(StorageError, match=r"The storage failed at 'a\.xlsx'"):
        parse_workbook(open_store("s3://bucket"), "a.xlsx", silent)


def test_a_store_that_wants_the_bucket_in_its_host_name(buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    buckets.objects["/in/a.xlsx"] = BOOK
    parse_workbook(open_store("s3://bucket/in"), "a.xlsx", silent)
    assert "/in/a.xlsx.clean.parquet" in buckets.objects

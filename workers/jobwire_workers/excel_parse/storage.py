"""Object storage: where the workbooks lie and the clean data goes, named by a URL.

A folder is a path or `file:///data/files`; a bucket is `s3://bucket/prefix` in any store that speaks S3. Keys are
relative to it and can not leave it. The environment says the rest for S3 (the names are obstore's, and AWS's):

- `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`: as everywhere;
- `AWS_ENDPOINT`: the store's address, when it is not AWS itself;
- `AWS_ALLOW_HTTP=true`: needed for an `http://` endpoint;
- `AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true`: for stores that want the bucket in the host name; the endpoint must then
  carry it already.

MinIO: `AWS_ENDPOINT=http://minio:9000 AWS_ALLOW_HTTP=true`. Alibaba Cloud OSS takes only virtual hosted requests:
`AWS_ENDPOINT=https://BUCKET.s3.oss-cn-hangzhou.aliyuncs.com AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true
AWS_REGION=cn-hangzhou`, with `--storage s3://BUCKET`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from jobwire_workers.excel_parse.errors import InputError, StorageError

MAX_KEY = 1000
"""Longest key, in bytes of UTF-8: S3 allows 1024, and the clean key is a little longer than its source."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def open_store(location: str) -> ObjectStore:
    """The store at a folder's path, a `file://` URL or an `s3://` URL.

    Raises ValueError for any other scheme, and StorageError if the folder does not exist. A bucket is not asked
    until the first read.
    """
    scheme, separator, _ = location.partition("://")
    if not separator:
        return _open_folder(Path(location))
    if scheme == "file":
        return _open_folder(Path(unquote(urlsplit(location).path)))
    if scheme in ("s3", "s3a"):
        # Few and quick tries: whoever calls us retries a failure later anyway, and must not look hung until then.
        return from_url(location, retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)})
    raise ValueError(f"storage {location!r}: scheme {scheme!r} is not known; give a folder, file:///… or s3://bucket/…")


def checked_key(key: object) -> str:
    """The key, if it is one that stays inside its store; else InputError saying what is wrong with it."""
    if not isinstance(key, str) or not key:
        raise InputError('The job names no file: its data needs a `file_key`, such as "uploads/report.xlsx".')
    if len(key.encode(errors="replace")) > MAX_KEY:
        raise InputError(f"The file key is too long: at most {MAX_KEY} bytes are allowed, {key[:60]!r}… has more.")
    if "\\" in key or _CONTROL.search(key) or any(part in ("", ".", "..") for part in key.split("/")):
        raise InputError(
            f"The file key {key!r} is not allowed: it must be a relative path with forward slashes, "
            "without empty parts, `.`, `..`, backslashes or control characters."
        )
    return key


def read_object(store: ObjectStore, key: str, max_bytes: int) -> bytes:
    """The whole object. InputError if there is none or it is larger than `max_bytes`; else StorageError."""
    with _storage_errors(key):
        try:
            found = obstore.get(store, key)
        except FileNotFoundError as error:
            _require_home(store, error)
            raise InputError(
                f"There is no file {key!r} in the storage. Was it deleted, or not fully uploaded?"
            ) from None
        if (size := found.meta["size"]) > max_bytes:
            raise InputError(f"The file {key!r} has {size:,} bytes; at most {max_bytes:,} can be read.")
        return found.bytes().to_bytes()


def write_object(store: ObjectStore, key: str, content: bytes) -> None:
    """Puts the object in place of any older one, in one step: a reader sees the old or the new content, whole.

    A folder gets a temporary file that is then renamed; S3 makes an object visible when its upload is complete.
    """
    with _storage_errors(key):
        obstore.put(store, key, content)


def _open_folder(folder: Path) -> LocalStore:
    if not folder.is_dir():
        raise StorageError(f"There is no storage folder {folder}: create it, or name another one.")
    return LocalStore(prefix=folder.absolute())


def _require_home(store: ObjectStore, missing: FileNotFoundError) -> None:
    """Without its folder or bucket a store calls every object missing; that is no fault of the file."""
    if isinstance(store, LocalStore) and store.prefix is not None and not Path(store.prefix).is_dir():
        raise StorageError(f"The storage folder {store.prefix} is gone: is it mounted?") from None
    if "NoSuchBucket" in str(missing):
        raise StorageError("The storage bucket does not exist: check the URL and the endpoint.") from None


@contextmanager
def _storage_errors(key: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        # The original stays out: its debug dump and the store's answer can hold key ids and signed strings.
        raise StorageError(f"The storage failed at {key!r}: {_essence(error)}") from None


def _essence(error: Exception) -> str:
    first_line, _, answer = str(error).partition(": <?xml")
    code = re.search(r"<Code>(\w+)</Code>", answer)
    return first_line.splitlines()[0][:300] + (f" ({code[1]})" if code else "")

"""Files of tokens and certificates: what a server refuses to start with, in which words, and with no secret in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobwire_server.api import certificate
from jobwire_server.api.bearers import Bearers
from jobwire_server.api.given_files import UnusableFile
from jobwire_server.domain.errors import Unauthenticated
from tests.certificates import new_certificate

TOKEN = "s3cret-0123456789"


def refusal_of_tokens(path: Path) -> str:
    with pytest.raises(UnusableFile) as caught:
        Bearers(path)
    message = str(caught.value)
    assert message.startswith("JOBWIRE_TOKENS_FILE: ") and str(path) in message
    assert "s3cret" not in message
    return message


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "has no token, so nobody could call"),
        (b"# ops s3cret-0123456789\n", "has no token"),
        (b"ops\n", "line 1 of"),
        (b"s3cret-0123456789\n", "must be `NAME TOKEN`, two words; it has 1"),
        (b"\nops s3cret-0123456789 more\n", "line 2 of"),
        (b"o/s s3cret-0123456789\n", "the name must be 1 to 63 letters"),
        (b"ops s3cret\n", "the token of ops must be 16 to 1,000 characters"),
        ("ops s3cret-ü0123456789\n".encode(), "plain ASCII"),
        (b"ops s3cret-0123456789\nci s3cret-0123456789\n", "the token of ci is that of another name already"),
        (b"ops s3cret-\xff\n", "is no text"),
        (b"#" * (1024 * 1024 + 1), "is larger than 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_file_of_tokens(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(content)
    assert rule in refusal_of_tokens(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal_of_tokens(tmp_path / "none")
    assert "Is a directory" in refusal_of_tokens(tmp_path)


def test_one_name_may_have_several_tokens_while_one_replaces_the_other(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(b"\xef\xbb\xbfops s3cret-0123456789\r\nops other-0123456789\r\n")
    bearers = Bearers(path)
    assert bearers.name_of(f"Bearer {TOKEN}") == bearers.name_of("Bearer other-0123456789") == "ops"
    with pytest.raises(Unauthenticated):
        bearers.name_of("Bearer ops")
    assert "s3cret" not in repr(vars(bearers)) + repr(vars(bearers._files))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = new_certificate()
    paths = tmp_path / "tls.crt", tmp_path / "tls.key"
    paths[0].write_bytes(cert)
    paths[1].write_bytes(key)
    return paths


def refusal_of_pair(paths: tuple[Path, Path]) -> str:
    with pytest.raises(UnusableFile) as caught:
        certificate.credentials(*paths)
    assert "PRIVATE" not in str(caught.value)
    return str(caught.value)


def test_a_pair_is_taken(pair: tuple[Path, Path]) -> None:
    assert certificate.credentials(*pair)


def test_a_key_of_another_certificate(pair: tuple[Path, Path]) -> None:
    pair[1].write_bytes(new_certificate()[0])
    message = refusal_of_pair(pair)
    assert message.startswith("JOBWIRE_TLS_CERT and JOBWIRE_TLS_KEY: ") and "make no pair" in message


def test_a_key_that_is_locked(pair: tuple[Path, Path]) -> None:
    key, cert = new_certificate(b"s3cret")
    pair[0].write_bytes(cert)
    pair[1].write_bytes(key)
    assert "locked with a password" in refusal_of_pair(pair)


@pytest.mark.parametrize("broken", [0, 1])
def test_files_that_are_no_pem(pair: tuple[Path, Path], broken: int) -> None:
    pair[broken].write_bytes(os.urandom(200))
    assert "they must be PEM" in refusal_of_pair(pair)


def test_a_missing_file_is_named_with_its_variable(pair: tuple[Path, Path]) -> None:
    pair[1].unlink()
    assert refusal_of_pair(pair).startswith(f"JOBWIRE_TLS_KEY: cannot read {pair[1]}: No such file")
    pair[0].unlink()
    assert refusal_of_pair(pair).startswith(f"JOBWIRE_TLS_CERT: cannot read {pair[0]}: No such file")

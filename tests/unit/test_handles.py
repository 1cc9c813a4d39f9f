"""Handles: what is written is read again, and nothing else is read as one."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobwire_server.domain.handles import Handle

HANDLES = st.builds(
    Handle,
    queue=st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True),
    job_id=st.uuids(allow_nil=True),
    token=st.uuids(allow_nil=True),
    place=st.integers(1, 65_535),
)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SAMPLE = Handle("mail", UUID(int=1), UUID(int=2), 3)


@given(HANDLES)
def test_round_trip(handle: Handle) -> None:
    text = str(handle)
    assert Handle.parse(text) == handle
    assert text.isascii() and len(text) <= 131 and not set(text) & set("+/= ")


@given(st.one_of(st.text(max_size=200), st.from_regex(r"[A-Za-z0-9_+/=-]{30,140}", fullmatch=True)))
@example("")
@example("AQAB" + "A" * 47)
def test_what_is_read_is_what_would_be_written(text: str) -> None:
    handle = Handle.parse(text)
    assert handle is None or str(handle) == text


@pytest.mark.parametrize("instead", [("-", "+"), ("_", "/")])
def test_the_other_alphabet_of_base64_is_not_ours(instead: tuple[str, str]) -> None:
    text = str(Handle("mail", UUID(int=1), UUID("fbefbefb-efbe-ffff-ffff-ffffffffffff"), 3))
    assert text[4:].startswith("--------____")
    assert Handle.parse(text.replace(*instead)) is None


def test_one_handle_has_one_spelling() -> None:
    """The last character may hold bits that stand for nothing."""
    text = str(Handle("ma", UUID(int=1), UUID(int=2), 3))
    assert len(text) % 4
    assert [other for other in ALPHABET if Handle.parse(text[:-1] + other) == Handle.parse(text)] == [text[-1]]


@given(HANDLES, st.data())
def test_one_wrong_character_is_no_handle_or_another(handle: Handle, data: st.DataObject) -> None:
    text = str(handle)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(max_codepoint=0x2FF).filter(lambda character: character != text[at]))
    read = Handle.parse(text[:at] + other + text[at + 1 :])
    assert read is None or read != handle


@given(HANDLES, st.text("=\n \0\t", min_size=1, max_size=4))
def test_nothing_may_be_added(handle: Handle, more: str) -> None:
    assert Handle.parse(str(handle) + more) is None
    assert Handle.parse(more + str(handle)) is None


def raw(version: int = 1, place: int = 3, queue: bytes = b"mail") -> str:
    body = bytes([version]) + place.to_bytes(2, "big") + bytes(32) + queue
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "text",
    [
        raw(version=0),
        raw(version=2),
        raw(place=0),
        raw(queue=b""),
        raw(queue=b"x" * 64),
        raw(queue=b"a b"),
        raw(queue=b"a:b"),
        raw(queue="é".encode()),
        raw(queue=b"\xff"),
        raw(queue=b"a\n"),
        raw()[:30],
        str(SAMPLE) * 2,
        "é" + str(SAMPLE)[1:],
        "\ud800" + str(SAMPLE)[1:],
    ],
)
def test_what_no_server_can_have_made(text: str) -> None:
    assert Handle.parse(text) is None


def test_the_samples_above_would_be_handles_otherwise() -> None:
    assert Handle.parse(raw()) == Handle("mail", UUID(int=0), UUID(int=0), 3)

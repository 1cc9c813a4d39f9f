"""Single fields of requests: what is taken, what is refused, and that the refusal names path and rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from jobwire_server.api import answers, fields
from jobwire_server.domain import limits
from jobwire_server.domain.errors import InvalidArgument

int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)


def refusal(call: object) -> str:
    assert callable(call)
    with pytest.raises(InvalidArgument) as caught:
        call()
    (violation,) = caught.value.violations
    assert violation.field == "at"
    return violation.rule


@given(st.integers(0, limits.START_AHEAD_MAX))
def test_durations_come_back_as_they_went(ms: int) -> None:
    assert fields.duration_ms(answers.duration(ms), "at", 0, limits.START_AHEAD_MAX) == ms


@given(int64, int32)
def test_any_duration_is_within_bounds_or_refused(seconds: int, nanos: int) -> None:
    try:
        ms = fields.duration_ms(Duration(seconds=seconds, nanos=nanos), "at", 1_000, 5_000)
    except InvalidArgument:
        return
    assert 1_000 <= ms <= 5_000
    assert ms == -(-(seconds * 1_000_000_000 + nanos) // 1_000_000)


def test_a_pause_never_becomes_none() -> None:
    assert fields.duration_ms(Duration(nanos=1), "at", 0, 1_000) == 1


@pytest.mark.parametrize(
    ("seconds", "nanos", "rule"),
    [
        (0, -1, "must be 0 s to 7 days; got -1e-09 s"),
        (604_800, 1, "must be 0 s to 7 days; got 604,800 s"),
        (1, 1_000_000_000, "is no valid Duration"),
        (1, -1, "is no valid Duration"),
        (-1, 1, "is no valid Duration"),
        (2**63 - 1, 0, "must be 0 s to 7 days"),
        (-(2**63), -999_999_999, "must be 0 s to 7 days"),
    ],
)
def test_durations_out_of_bounds_or_malformed_are_refused(seconds: int, nanos: int, rule: str) -> None:
    value = Duration(seconds=seconds, nanos=nanos)
    assert refusal(lambda: fields.duration_ms(value, "at", 0, limits.RETRY_DELAY_MAX)).startswith(rule)


@given(int64, int32)
def test_any_timestamp_is_a_moment_or_refused(seconds: int, nanos: int) -> None:
    try:
        moment = fields.timestamp(Timestamp(seconds=seconds, nanos=nanos), "at", limits.DAY)
    except InvalidArgument:
        return
    assert moment <= datetime.now(UTC) + timedelta(days=1)


def test_timestamps_keep_their_microseconds() -> None:
    moment = datetime(2024, 2, 29, 12, 30, 59, 123_456, tzinfo=UTC)
    message = answers.timestamp(moment)
    assert message is not None
    assert fields.timestamp(message, "at", 0) == moment


@pytest.mark.parametrize(
    ("seconds", "nanos", "rule"),
    [
        (0, -1, "is no valid Timestamp"),
        (0, 1_000_000_000, "is no valid Timestamp"),
        (-62_135_596_801, 0, "is no valid Timestamp"),
        (253_402_300_800, 0, "is no valid Timestamp"),
        (253_402_300_799, 0, "must be at most 1 day ahead; got 9999-12-31 23:59:59 UTC"),
    ],
)
def test_timestamps_too_far_or_malformed_are_refused(seconds: int, nanos: int, rule: str) -> None:
    value = Timestamp(seconds=seconds, nanos=nanos)
    assert refusal(lambda: fields.timestamp(value, "at", limits.DAY)).startswith(rule)


@given(st.uuids())
def test_uuids_are_read_in_both_cases(value: UUID) -> None:
    assert fields.uuid(str(value), "at") == fields.uuid(str(value).upper(), "at") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "01890a5dac96774bbcceb302099a8057",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
        "01890a5d-ac96-774b-bcce-b302099a8057\n",
        "01890a5d-ac96-774b-bcce-b302099a805g",
        "\N{ARABIC-INDIC DIGIT ZERO}1890a5d-ac96-774b-bcce-b302099a8057",
    ],
)
def test_what_is_no_uuid_is_refused(text: str) -> None:
    assert refusal(lambda: fields.uuid(text, "at")).startswith("must be a UUID such as ")


def test_text_is_counted_in_characters_and_may_not_hold_nul() -> None:
    assert fields.plain_text("ü" * 5, "at", 5) == "ü" * 5
    assert refusal(lambda: fields.plain_text("ü" * 6, "at", 5)) == "must have at most 5 characters; got 6"
    assert "NUL" in refusal(lambda: fields.plain_text("a\0", "at", 5))


@given(st.text(), st.integers(3, 50))
def test_cut_texts_fit_and_can_be_stored(text: str, most: int) -> None:
    by_characters, by_bytes = fields.cut_text(text, most), fields.cut_bytes(text, most)
    assert len(by_characters) <= most
    assert len(by_bytes.encode()) <= most
    assert "\0" not in by_characters + by_bytes
    if len(text.encode()) <= most and "\0" not in text:
        assert by_characters == by_bytes == text


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 s"),
        (1, "1 ms"),
        (1_500, "1,500 ms"),
        (1_000, "1 s"),
        (90_000, "90 s"),
        (60_000, "1 minute"),
        (900_000, "15 minutes"),
        (3_600_000, "1 hour"),
        (86_400_000, "1 day"),
        (315_360_000_000, "3,650 days"),
    ],
)
def test_spans_read_well(ms: int, words: str) -> None:
    assert fields.span(ms) == words

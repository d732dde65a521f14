"""Metadata as headers, bodies as files, and the meaning of errors: what needs no server."""

import io
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, SSLError
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.errors import (
    AlreadyThere,
    InvalidKey,
    NotAsSent,
    NotFound,
    Replaced,
    StoreError,
    Unreachable,
    Unsupported,
)
from backgate.gateway.providers.s3_body import PIECE, PieceByPiece
from backgate.gateway.providers.s3_errors import translation
from backgate.gateway.providers.s3_metadata import from_headers, to_headers


def answer(code: str, status: int, **headers: str) -> ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError(
        {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": metadata}, "x"
    )  # type: ignore[typeddict-item]


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True), st.text(max_size=40))
)
def test_any_text_passes_through_headers(metadata: dict[str, str]) -> None:
    headers = to_headers(metadata, 10**6, "s3://b", "k")

    assert all(
        text.isascii() and text.isprintable() and text.strip() == text for text in headers.values()
    )
    assert all(headers.values())
    assert from_headers({name.title(): text for name, text in headers.items()}) == metadata


def test_an_encoded_word_that_is_none_is_left_alone() -> None:
    assert from_headers({"a": "=?UTF-8?B?%%?=", "b": "=?UTF-8?B?w6k?="}) == {
        "a": "=?UTF-8?B?%%?=",
        "b": "=?UTF-8?B?w6k?=",
    }


@pytest.mark.parametrize("name", ["with blank", "colon:", "é", "new\nline", ""])
def test_a_name_that_no_header_has_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match="cannot name metadata"):
        to_headers({name: "1"}, 2048, "s3://b", "k")


@given(
    data=st.binary(max_size=50),
    reads=st.lists(st.integers(-1, 9), max_size=6),
    at=st.integers(0, 60),
)
def test_a_body_reads_as_a_file_does(data: bytes, reads: list[int], at: int) -> None:
    body = PieceByPiece(data)
    assert len(body) == len(data)

    body.seek(at)
    assert bytes(body.read()) == data[at:]
    assert body.tell() == len(data)
    assert bytes(body.read(5)) == b""
    assert body.seek(0, io.SEEK_END) == len(data)


def test_a_body_is_given_in_pieces_of_some_size() -> None:
    body = PieceByPiece(memoryview(bytes(2 * PIECE + 1)))

    assert [len(body.read(16384)) for _ in range(4)] == [PIECE, PIECE, 1, 0]


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NoSuchKey", 404, NotFound),
        ("404", 404, Unreachable),
        ("", 404, Unreachable),
        ("NoSuchTagSet", 404, StoreError),
        ("NotImplemented", 501, Unsupported),
        ("MethodNotAllowed", 405, Unsupported),
        ("KeyTooLongError", 400, InvalidKey),
        ("PreconditionFailed", 412, AlreadyThere),
        ("ConditionalRequestConflict", 409, Unreachable),
        ("BadDigest", 400, NotAsSent),
        ("InvalidDigest", 400, NotAsSent),
        ("XAmzContentSHA256Mismatch", 400, NotAsSent),
        ("XAmzContentChecksumMismatch", 400, NotAsSent),
        ("RequestTimeout", 400, Unreachable),
        ("", 502, Unreachable),
        ("InvalidBucketName", 400, StoreError),
    ],
)
def test_an_answer_means_one_error(code: str, status: int, expected: type[StoreError]) -> None:
    assert type(translation(answer(code, status), "s3://b: put 'k'", "k")) is expected


def test_a_precondition_means_what_was_asked() -> None:
    error = translation(answer("PreconditionFailed", 412), "s3://b: get 'k'", "k", Replaced)

    assert isinstance(error, Replaced)


def test_a_missing_bucket_is_not_a_missing_object() -> None:
    error = translation(answer("NoSuchBucket", 404), "s3://b: get 'k'", "k")

    assert (type(error), error.key) == (NotFound, None)
    assert "no such bucket" in str(error)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("7", 7, 7),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("9" * 30, 999_999_999, 999_999_999),
    ],
)
def test_retry_after_is_seconds_or_a_date_that_has_passed(
    text: str, low: float, high: float
) -> None:
    error = translation(answer("SlowDown", 503, **{"retry-after": text}), "s3://b: put 'k'")

    assert isinstance(error, Unreachable)
    assert error.retry_after is not None
    assert low <= error.retry_after <= high


def test_retry_after_may_be_a_date_to_come() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)

    error = translation(answer("SlowDown", 503, **{"retry-after": date}), "s3://b: put 'k'")

    assert isinstance(error, Unreachable)
    assert error.retry_after == pytest.approx(7200, abs=600)


@pytest.mark.parametrize("text", ["soon", "-1", "", "²"])
def test_a_retry_after_that_is_none_is_left_out(text: str) -> None:
    error = translation(answer("SlowDown", 503, **{"retry-after": text}), "s3://b: put 'k'")

    assert isinstance(error, Unreachable)
    assert error.retry_after is None


def test_a_stores_own_words_are_kept_short_and_on_one_line() -> None:
    said = answer("Odd", 400)
    said.response["Error"]["Message"] = "line\n\x1b[31m" + "x" * 10_000

    text = str(translation(said, "s3://b: put 'k'", "k"))

    assert len(text) < 400
    assert text.isprintable()


def test_a_connection_that_fails_may_be_mended_and_a_wrong_certificate_may_not() -> None:
    refused = EndpointConnectionError(endpoint_url="https://x", error="refused")
    distrusted = SSLError(endpoint_url="https://x", error="[SSL: CERTIFICATE_VERIFY_FAILED]")
    broken = SSLError(endpoint_url="https://x", error="EOF occurred in violation of protocol")

    assert isinstance(translation(refused, "s3://b: put 'k'"), Unreachable)
    assert isinstance(translation(broken, "s3://b: put 'k'"), Unreachable)
    error = translation(distrusted, "s3://b: put 'k'")
    assert type(error) is StoreError
    assert "ca_bundle" in str(error)

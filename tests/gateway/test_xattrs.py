"""Extended attributes in an object's metadata are those that s3fs reads and writes."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.xattrs import COUNT_MAX, NAME_MAX, TEXT_MAX, text_of, xattrs_of

NAMES = st.binary(min_size=1, max_size=NAME_MAX).filter(lambda name: b"\0" not in name)


@given(xattrs=st.dictionaries(NAMES, st.binary(max_size=50), max_size=5))
def test_any_attributes_come_back(xattrs: dict[bytes, bytes]) -> None:
    text = text_of(xattrs)

    assert text.isascii()
    assert xattrs_of(text) == xattrs


def test_the_text_is_that_of_s3fs() -> None:
    text = text_of({b"user.name": b"value", b"user.a": b"\xff"})

    value, other = base64.b64encode(b"value").decode(), base64.b64encode(b"\xff").decode()
    assert text == quote(f'{{"user.a":"{other}","user.name":"{value}"}}', safe="")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "%",
        "%7B%22a%22%3A1%7D",
        "[]",
        '{"a":"not base64!"}',
        '{"":"YQ=="}',
        '{"a\\u0000":"YQ=="}',
        '{"\\ud800":"YQ=="}',
        "[" * 10_000,
        "x" * (TEXT_MAX + 1),
        "{" + ",".join(f'"{number}":""' for number in range(COUNT_MAX + 1)) + "}",
    ],
)
def test_what_makes_no_sense_counts_as_not_given(text: str) -> None:
    assert not xattrs_of(text)

"""What a ranged GET answered, checked against what was asked for."""

import re

from backgate.gateway.errors import Replaced, StoreError, Unreachable
from backgate.gateway.provider import Provider
from backgate.gateway.providers.web import Answer

BEHIND_THE_END = 416  # the range begins where the object has no bytes

_CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20}|\*)")


def bytes_of(answer: Answer, start: int, stop: int, what: str, key: str) -> bytes:
    """Return `[start, stop)` out of an answer of status 200 or 206.

    Raises `Unreachable` when fewer bytes came than were announced, `StoreError` when others did.
    """
    if answer.status == 200 and start > 0:
        raise StoreError(f"{what}: the store ignores ranges", key=key)
    expected = _expected(answer, start, stop, what, key)
    data = answer.body if len(answer.body) <= stop - start else answer.body[: stop - start]
    if len(data) != expected:
        raise Unreachable(f"{what}: {len(data)} bytes came instead of {expected}", key=key)
    return data


def nothing_of(provider: Provider, key: str, start: int, etag: str | None) -> bytes:
    """A range behind the end is empty; unless that is so since the object was replaced."""
    info = provider.head(key)
    if etag is not None and info.etag != etag:
        raise Replaced(f"{provider.name}: get {key!r}: another version now", key=key)
    if start < info.size:
        raise Unreachable(f"{provider.name}: get {key!r}: refused a range it has", key=key)
    return b""


def _expected(answer: Answer, start: int, stop: int, what: str, key: str) -> int:
    """How many bytes the answer announced."""
    if answer.status == 200:
        return stop if answer.length is None else min(stop, answer.length)
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    if match is None or int(match[1]) != start:
        raise StoreError(f"{what}: another range than asked for", key=key)
    end = stop if match[3] == "*" else min(stop, int(match[3]))
    if int(match[2]) + 1 != end:
        raise StoreError(f"{what}: another range than asked for", key=key)
    return end - start

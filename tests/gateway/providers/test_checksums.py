"""Tests of `gateway/providers/checksums.py`: the sums, and what a wrong answer comes to."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from google_crc32c import value
from trio.testing import MockClock

from backgate.gateway.errors import NotAsSent, StoreError, Unreachable
from backgate.gateway.provider import NO_METADATA, ObjectInfo
from backgate.gateway.providers.checksums import PIECE, Outgoing, Sender
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: memoryview(bytearray(data))])
def test_a_body_of_any_kind_has_the_checksums_of_the_standards(
    kind: Callable[[bytes], Any],
) -> None:
    nine = Outgoing(kind(b"123456789"))

    assert base64.b64decode(nine.crc32c).hex() == "e3069283"  # RFC 3720's check value
    assert nine.md5.hex() == "25f9e794323b453885f5181f1b624d0b"
    assert nine.content_md5 == "JfnnlDI7RTiF9RgfG2JNCw=="
    assert nine.sha256.startswith("15e2b0d3c33891eb")


def test_a_body_in_many_pieces_is_summed_as_one() -> None:
    data = bytes(range(256)) * (PIECE // 256 * 2 + 3)

    assert base64.b64decode(Outgoing(data).crc32c) == value(data).to_bytes(4, "big")
    assert base64.b64decode(Outgoing(b"").crc32c) == bytes(4)


class Forging(Memory, Sender):
    """Keeps other bytes than came, `times` times, and tells."""

    def __init__(self, times: int) -> None:
        Memory.__init__(self)
        self.times, self.sums = times, []  # type: ignore[var-annotated]
        self.refuses_deletes = False

    put, put_part = Sender.put, Sender.put_part

    def send(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo:
        self.sums.append(outgoing)
        if self.times:
            self.times -= 1
            Memory.put(self, key, b"damaged", metadata, if_absent=if_absent)
            raise NotAsSent("others arrived", key=key, is_stored=True)
        return Memory.put(self, key, outgoing.body, metadata, if_absent=if_absent)

    def send_part(self, key: str, upload: str, number: int, outgoing: Outgoing) -> str:
        return Memory.put_part(self, key, upload, number, outgoing.body)

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        if self.refuses_deletes:
            raise Unreachable("no delete")
        return super().delete(keys)


async def test_what_arrived_damaged_is_sent_again_with_the_sums_of_the_first_time(
    autojump_clock: MockClock,
) -> None:
    provider = Forging(times=3)
    store = ObjectStore(provider)

    await store.put("a", b"right")

    assert await store.get("a", 0, 9) == b"right"
    assert len(provider.sums) == 4
    assert len(set(map(id, provider.sums))) == 1


async def test_a_conditional_put_that_arrived_damaged_never_counts_as_done(
    autojump_clock: MockClock,
) -> None:
    provider = Forging(times=2)
    store = ObjectStore(provider)

    await store.put("lock", b"right", if_absent=True)

    assert await store.get("lock", 0, 9) == b"right"


async def test_what_arrived_damaged_and_cannot_be_taken_back_is_told() -> None:
    provider = Forging(times=1)
    provider.refuses_deletes = True
    store = ObjectStore(provider)

    with pytest.raises(StoreError, match="others arrived; and it stays: no delete") as caught:
        await store.put("lock", b"right", if_absent=True)

    assert not isinstance(caught.value, Unreachable)


async def test_what_arrives_damaged_time_and_again_is_told_and_never_acknowledged(
    autojump_clock: MockClock,
) -> None:
    store = ObjectStore(Forging(times=1000), patience=60)

    with pytest.raises(NotAsSent, match="others arrived"):
        await store.put("a", b"right", NO_METADATA)

    assert store.counters.retries > 2

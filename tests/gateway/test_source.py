"""Any read of any source equals a slice of its bytes."""

import trio
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.source import Bytes, Concat, Source, Window, Zeros

offsets = st.integers(0, 60)


def read(source: Source, offset: int, length: int) -> bytes:
    async def main() -> bytes:
        return bytes(await source.read_at(offset, length))

    return trio.run(main)


@given(st.binary(max_size=40), offsets, offsets)
def test_bytes_read_as_a_slice(data: bytes, offset: int, length: int) -> None:
    assert read(Bytes(data), offset, length) == data[offset : offset + length]


@given(st.integers(0, 40), offsets, offsets)
def test_zeros_read_as_a_slice(size: int, offset: int, length: int) -> None:
    assert read(Zeros(size), offset, length) == bytes(size)[offset : offset + length]


@given(st.binary(min_size=10, max_size=40), st.integers(0, 10), offsets, offsets)
def test_a_window_reads_as_a_slice(data: bytes, start: int, offset: int, length: int) -> None:
    size = (len(data) - start) // 2

    expected = data[start : start + size][offset : offset + length]

    assert read(Window(Bytes(data), start, size), offset, length) == expected


@given(st.lists(st.binary(max_size=10), max_size=6), offsets, offsets)
def test_parts_one_after_another_read_as_a_slice(
    parts: list[bytes], offset: int, length: int
) -> None:
    source = Concat([Bytes(part) for part in parts])

    assert source.size == len(b"".join(parts))
    assert read(source, offset, length) == b"".join(parts)[offset : offset + length]

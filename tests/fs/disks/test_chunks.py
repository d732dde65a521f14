"""Chunks are decoded once, kept within their limit, and decompressed within theirs."""

import gzip

import brotli
import pytest
import trio
import trio.testing

from backgate.fs.disks.chunks import AT_ONCE, Chunks
from backgate.fs.disks.filters import BadChunk, filter_named
from backgate.fs.disks.keys import BadPath, beside


async def test_all_who_want_a_chunk_share_one_decoding() -> None:
    chunks, made = Chunks(100), 0

    async def make() -> bytes:
        nonlocal made
        made += 1
        await trio.testing.wait_all_tasks_blocked()
        return b"chunk"

    async def reader() -> None:
        assert await chunks.chunk("a", make) == b"chunk"

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(reader)

    assert made == 1


async def test_who_waits_tries_himself_when_it_failed() -> None:
    chunks = Chunks(100)
    outcomes = iter([ValueError("first"), b"second"])

    async def make() -> bytes:
        await trio.testing.wait_all_tasks_blocked()
        outcome = next(outcomes)
        if isinstance(outcome, ValueError):
            raise outcome
        return outcome

    async def fails() -> None:
        with pytest.raises(ValueError, match="first"):
            await chunks.chunk("a", make)

    async def succeeds() -> None:
        assert await chunks.chunk("a", make) == b"second"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(succeeds)


async def test_what_is_kept_stays_within_the_limit_and_what_is_larger_is_not_kept() -> None:
    chunks, made = Chunks(10), list[str]()

    async def get(name: str, size: int) -> None:
        async def make() -> bytes:
            made.append(name)
            await trio.lowlevel.checkpoint()
            return bytes(size)

        await chunks.chunk(name, make)

    for name, size in (("a", 6), ("a", 6), ("b", 6), ("a", 6), ("c", 11), ("c", 11)):
        await get(name, size)

    assert made == ["a", "b", "a", "c", "c"]


async def test_only_so_many_chunks_are_decoded_at_once() -> None:
    chunks, working, most = Chunks(1), 0, 0

    async def make() -> bytes:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await trio.testing.wait_all_tasks_blocked()
        working -= 1
        return b"x"

    async with trio.open_nursery() as nursery:
        for number in range(3 * AT_ONCE):
            nursery.start_soon(chunks.chunk, number, make)

    assert most == AT_ONCE


@pytest.mark.parametrize("name", ["brotli", "gzip", "none", ""])
def test_a_filter_gives_what_was_filtered_and_stops_at_the_limit(name: str) -> None:
    plain = b"some bytes " * 1000
    stored = {"brotli": brotli.compress, "gzip": gzip.compress}.get(name, bytes)(plain)
    undo = filter_named(name)

    assert undo(stored, len(plain)) == plain
    assert undo(memoryview(stored), len(plain) + 5) == plain
    with pytest.raises(BadChunk, match="bytes"):
        undo(stored, len(plain) - 1)


@pytest.mark.parametrize("name", ["brotli", "gzip"])
def test_a_stream_that_is_cut_off_or_goes_on_is_no_chunk(name: str) -> None:
    plain = b"some bytes " * 1000
    stored = {"brotli": brotli.compress, "gzip": gzip.compress}[name](plain)
    undo = filter_named(name)

    for bad in (b"", stored[:-1], stored[: len(stored) // 2], stored + b"more"):
        with pytest.raises(BadChunk):
            undo(bad, len(plain))


def test_a_filter_that_is_not_known_is_refused() -> None:
    with pytest.raises(BadChunk, match="zstd"):
        filter_named("zstd")


@pytest.mark.parametrize(
    ("key", "name", "root", "leads_to"),
    [
        ("a/b/c.vhd", "d.vhd", "", "a/b/d.vhd"),
        ("a/b/c.vhd", "../d.vhd", "", "a/d.vhd"),
        ("a/b/c.vhd", "./x/../d.vhd", "a/", "a/b/d.vhd"),
        ("c.vhd", "data/d.vhd", "", "data/d.vhd"),
    ],
)
def test_a_name_beside_a_key_leads_to_a_key(key: str, name: str, root: str, leads_to: str) -> None:
    assert beside(key, name, root) == leads_to


@pytest.mark.parametrize(
    ("name", "root"),
    [("../../../d", ""), ("/d", ""), ("", ""), ("a\0b", ""), ("../../d", "a/"), (".", "a/b/")],
)
def test_a_name_that_leads_out_is_refused(name: str, root: str) -> None:
    with pytest.raises(BadPath):
        beside("a/b/c.vhd", name, root)

"""Random access to compressed objects of every shape: any read equals a slice, and costs little."""

import zlib
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as some
from support.compressed import SHAPES, Counted, first_pass, plain_bytes, unpacked

from backgate.fs.formats.compression import firstpass
from backgate.fs.formats.compression import gzip as gzip_codec
from backgate.fs.formats.indexes import open_index
from backgate.gateway.errors import Damaged
from backgate.gateway.units import KIB, MIB

PLAIN = plain_bytes(3 * MIB + 12_345)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
async def test_any_read_equals_the_slice(tmp_path: Path, shape: str) -> None:
    async with unpacked(SHAPES[shape](PLAIN), tmp_path / "index") as (source, _):
        assert source.size == len(PLAIN)
        for offset in (len(PLAIN) - 7, 0, 2 * MIB, MIB - 1, 5, MIB, len(PLAIN), 10**12):
            for length in (0, 1, 4096, 1_500_000):
                assert await source.read_at(offset, length) == PLAIN[offset : offset + length]


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_empty_object_is_empty(tmp_path: Path, shape: str) -> None:
    async with unpacked(SHAPES[shape](b""), tmp_path / "index") as (source, _):
        assert source.size == 0
        assert await source.read_at(0, 10) == b""


@pytest.mark.slow
async def test_gzip_restarts_at_every_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_codec, "SPACING", 4 * KIB)
    path = tmp_path / "index"
    small_blocks = zlib.compressobj(wbits=31, memLevel=1)
    packed = Counted(small_blocks.compress(PLAIN) + small_blocks.flush())
    await first_pass(packed, path)
    database = open_index(path)
    states = database.execute("SELECT state FROM units WHERE length(state) > 0").fetchall()
    database.close()
    assert {state[0] for (state,) in states} == set(range(8))

    async with unpacked(packed.data, tmp_path / "again") as (source, _):
        for offset in range(len(PLAIN) - 1000, 0, -33_333):
            assert await source.read_at(offset, 1000) == PLAIN[offset : offset + 1000]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    shape=some.sampled_from(sorted(SHAPES)),
    size=some.integers(0, 400_000),
    seed=some.integers(0, 99),
    reads=some.lists(some.tuples(some.integers(0, 400_000), some.integers(0, 200_000)), max_size=6),
)
def test_any_object_gives_back_its_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    shape: str,
    size: int,
    seed: int,
    reads: list[tuple[int, int]],
) -> None:
    plain = plain_bytes(size + 1, seed)

    async def check() -> None:
        path = tmp_path_factory.mktemp("any") / "index"
        async with unpacked(SHAPES[shape](plain), path) as (source, _):
            for offset, length in reads:
                assert await source.read_at(offset, length) == plain[offset : offset + length]

    trio.run(check)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    ["gzip", "bzip2", "xz of many blocks", "zstd of many frames", "xz of one block", "zstd"],
)
async def test_a_read_near_the_end_costs_few_requests_and_bytes(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gzip_codec, "SPACING", MIB)
    monkeypatch.setattr(firstpass, "COPY_BEHIND", MIB)
    plain = plain_bytes(12 * MIB)

    async with unpacked(SHAPES[shape](plain), tmp_path / "index") as (source, packed):
        assert await source.read_at(len(plain) - 50_000, 50_000) == plain[-50_000:]

        assert len(packed.reads) <= 2
        assert sum(length for _, length in packed.reads) < packed.size / 4


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
async def test_reading_on_does_not_start_again(tmp_path: Path, shape: str) -> None:
    async with unpacked(SHAPES[shape](PLAIN), tmp_path / "index") as (source, packed):
        for offset in range(0, len(PLAIN), 128 * KIB):
            data = await source.read_at(offset, 128 * KIB)
            assert data == PLAIN[offset : offset + 128 * KIB]

        fetched = sum(length for _, length in packed.reads)
        assert fetched <= packed.size + 64 * KIB


async def test_readers_of_one_place_share_the_work(tmp_path: Path) -> None:
    async with unpacked(SHAPES["gzip"](PLAIN), tmp_path / "index") as (source, packed):

        async def read() -> None:
            assert await source.read_at(MIB, 1000) == PLAIN[MIB : MIB + 1000]

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(read)

        assert sum(length for _, length in packed.reads) <= packed.size


async def test_little_memory_only_makes_it_wait(tmp_path: Path) -> None:
    async with unpacked(SHAPES["zstd of many frames"](PLAIN), tmp_path / "index", memory=1) as (
        source,
        _,
    ):

        async def read(offset: int) -> None:
            assert await source.read_at(offset, 1000) == PLAIN[offset : offset + 1000]

        async with trio.open_nursery() as nursery:
            for offset in range(0, len(PLAIN), 200_000):
                nursery.start_soon(read, offset)


async def test_a_cancelled_reader_leaves_the_place_to_others(tmp_path: Path) -> None:
    async with unpacked(SHAPES["gzip"](PLAIN), tmp_path / "index") as (source, packed):
        waiting = trio.Event()
        go_on = trio.Event()
        give = packed.read_at

        async def slow(offset: int, length: int) -> object:
            waiting.set()
            await go_on.wait()
            return await give(offset, length)

        packed.read_at = slow  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.read_at, 10, 10)
            await waiting.wait()
            nursery.cancel_scope.cancel()
        go_on.set()

        assert await source.read_at(10, 10) == PLAIN[10:20]


async def test_an_object_that_changed_since_is_damaged(tmp_path: Path) -> None:
    data = SHAPES["gzip of stored blocks"](PLAIN)
    async with unpacked(data, tmp_path / "index") as (source, packed):
        changed = bytearray(data)
        changed[1_000_000] ^= 1
        packed.data = bytes(changed)

        assert await source.read_at(2 * MIB, 100) == PLAIN[2 * MIB : 2 * MIB + 100]
        with pytest.raises(Damaged, match="not those of the first pass"):
            await source.read_at(999_000, 5000)

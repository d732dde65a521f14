"""What each compression checks, and the shapes that only it has."""

import bz2
import gzip
import lzma
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import zstandard
from support.compressed import Counted, first_pass, plain_bytes, unpacked

from backgate.fs.formats.compression import firstpass, xz, zstd
from backgate.fs.formats.compression.codec import Restart, codec_of
from backgate.fs.formats.compression.packed import PackedFile
from backgate.gateway.errors import Damaged, FileError
from backgate.gateway.units import MIB

PLAIN = plain_bytes(200_000)


async def refused(data: bytes, path: Path, match: str) -> None:
    (path / "index").unlink(missing_ok=True)
    with pytest.raises(Damaged, match=match):
        await first_pass(Counted(data), path / "index")


async def passes(data: bytes, path: Path, plain: bytes = PLAIN) -> None:
    (path / "index").unlink(missing_ok=True)
    async with unpacked(data, path / "index") as (source, _):
        assert await source.read_at(0, len(plain) + 1) == plain


def test_the_compression_is_told_by_the_beginning() -> None:
    for name, data in (
        ("gzip", gzip.compress(b"")),
        ("bzip2", bz2.compress(b"x")),
        ("xz", lzma.compress(b"")),
        ("zstd", zstandard.compress(b"")),
        ("zstd", b"\x50\x2a\x4d\x18\0\0\0\0"),
    ):
        codec = codec_of(data[:6])
        assert codec is not None
        assert codec.name == name
    assert codec_of(b"ustar\0") is None
    assert codec_of(b"") is None


async def test_gzip_headers_with_every_field_are_passed(tmp_path: Path) -> None:
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(PLAIN) + deflate.flush()
    header = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x05\0extra" + b"name\0" + b"comment\0" + b"\1\2"
    trailer = struct.pack("<II", zlib.crc32(PLAIN), len(PLAIN))

    await passes(header + body + trailer, tmp_path)


async def test_gzip_checks_sum_and_length_of_every_member(tmp_path: Path) -> None:
    good = gzip.compress(PLAIN)
    for at in (-1, -4, -5, -8):
        bad = bytearray(good)
        bad[at] ^= 1
        await refused(bytes(bad) + good, tmp_path, "checksum or length")


async def test_what_follows_must_be_more_of_the_same_or_zeros(tmp_path: Path) -> None:
    for compress in (gzip.compress, bz2.compress, lzma.compress, zstandard.compress):
        packed: bytes = compress(PLAIN)
        await passes(packed + bytes(512), tmp_path)
        await refused(packed + b"garbage!", tmp_path, "object at byte")


async def test_a_bzip2_mark_may_stand_in_a_block_by_chance(tmp_path: Path) -> None:
    # The map of used bytes lies in the block as 16 bits for each 16 values: these three groups
    # spell the mark of a block, 0x314159265359.
    groups = {4: 0x3141, 5: 0x5926, 6: 0x5359}
    used = bytes(
        16 * group + bit
        for group, bits in groups.items()
        for bit in range(16)
        if bits >> 15 - bit & 1
    )
    plain = used * 3000
    packed = bz2.compress(plain)
    assert f"{int.from_bytes(packed, 'big'):b}".count(f"{0x314159265359:048b}") == 2

    await passes(packed, tmp_path, plain)


async def test_bzip2_checks_every_block_and_the_stream(tmp_path: Path) -> None:
    packed = bytearray(bz2.compress(PLAIN))
    packed[12] ^= 1  # the block's CRC
    await refused(bytes(packed), tmp_path, "does not hold together|truncated")
    empty = bytearray(bz2.compress(b""))
    empty[-1] ^= 0xFF  # the stream's CRC, of no block
    await refused(bytes(empty), tmp_path, "checksum over the blocks")


async def test_xz_needs_no_more_memory_than_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xz, "MEMORY_MAX", 4 * MIB)

    await refused(lzma.compress(PLAIN, preset=6), tmp_path, "[Mm]emory")


async def test_xz_blocks_that_need_more_memory_than_the_first_are_refused(tmp_path: Path) -> None:
    small, large = ([{"id": lzma.FILTER_LZMA2, "dict_size": size}] for size in (MIB, 32 * MIB))
    one, two = (lzma.compress(PLAIN, filters=filters) for filters in (small, large))

    await passes(joined(two, one), tmp_path, 2 * PLAIN)
    await refused(joined(one, two), tmp_path, "[Mm]emory")


async def test_xz_takes_no_more_memory_after_a_restart_than_it_said(tmp_path: Path) -> None:
    small = lzma.compress(PLAIN, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": MIB}])
    large = lzma.compress(PLAIN, preset=9)
    state = xz._STATE.pack(large[6:8], len(large), 3 * MIB)

    await trio.to_thread.run_sync(drain, small, state)
    with pytest.raises(Damaged, match=r"[Mm]emory"):
        await trio.to_thread.run_sync(drain, large, state)


def drain(packed: bytes, state: bytes) -> None:
    file = PackedFile("object", Counted(packed), start=12)
    with suppress(EnoughRead):
        for _ in xz.unpack(file, state):
            raise EnoughRead


class EnoughRead(Exception):
    """The decoder did begin."""


def joined(one: bytes, two: bytes) -> bytes:
    """Return the single blocks of two xz streams as blocks of one stream."""
    blocks, records = b"", b""
    for packed in (one, two):
        size = (int.from_bytes(packed[-8:-4], "little") + 1) * 4
        index = packed[-12 - size : -12]
        blocks += packed[12 : -12 - size]
        at = 2
        for _ in range(2):
            while index[at] & 0x80:
                at += 1
            at += 1
        records += index[2:at]
    index = b"\0\2" + records
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    rest = (len(index) // 4 - 1).to_bytes(4, "little") + one[6:8]
    footer = zlib.crc32(rest).to_bytes(4, "little") + rest + b"YZ"
    return one[:12] + blocks + index + footer


async def test_more_xz_blocks_than_memory_has_room_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xz, "BLOCKS_MAX", 3)
    packed = lzma.compress(PLAIN[:1000])

    await passes(packed * 3, tmp_path, PLAIN[:1000] * 3)
    await refused(packed * 4, tmp_path, "more than 3 blocks")


async def test_a_zstd_frame_that_needs_more_memory_is_a_restart(tmp_path: Path) -> None:
    frames = b""
    for log in (10, 20, 25):
        parameters = zstandard.ZstdCompressionParameters(window_log=log, compression_level=1)
        made = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        frames += made.compress(PLAIN[:1000]) + made.flush()
    restarts: list[Restart] = []

    def run() -> None:
        given = zstd.unpack(PackedFile("object", Counted(frames)), None)
        restarts.extend(one for one in given if isinstance(one, Restart))

    await trio.to_thread.run_sync(run)

    assert [restart.memory >> 20 for restart in restarts] == [1, 2, 33]


async def test_xz_of_preset_9_is_read(tmp_path: Path) -> None:
    await passes(lzma.compress(PLAIN, preset=9), tmp_path)


async def test_xz_checks_its_index(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(PLAIN))
    packed[-20] ^= 1
    await refused(bytes(packed), tmp_path, "index")


async def test_zstd_checks_the_checksum_of_a_frame(tmp_path: Path) -> None:
    packed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN))
    packed[-1] ^= 1
    await refused(bytes(packed), tmp_path, "zstd")


async def test_zstd_windows_beyond_128_mib_are_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    made = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = made.compress(PLAIN) + made.flush()

    await refused(packed, tmp_path, "zstd")


async def test_a_full_disk_ends_the_first_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firstpass, "FREE_MIN", 1 << 60)
    monkeypatch.setattr(firstpass, "DISK_LOOK", 1)

    with pytest.raises(FileError, match="no room"):
        await first_pass(Counted(gzip.compress(PLAIN)), tmp_path / "index")


@pytest.mark.slow
async def test_without_room_for_copies_it_is_only_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firstpass, "COPY_FREE", 1 << 60)
    monkeypatch.setattr(firstpass, "COPY_BEHIND", 0)
    monkeypatch.setattr(firstpass, "DISK_LOOK", 1)
    plain = plain_bytes(3 * MIB)

    async with unpacked(zstandard.compress(plain), tmp_path / "index") as (source, packed):
        assert await source.read_at(len(plain) - 9, 9) == plain[-9:]
        assert packed.reads

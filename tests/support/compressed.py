"""Compressed objects for tests: made in every shape, passed once, and read as a source."""

import bz2
import gzip
import lzma
import random
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import trio
import zstandard

from backgate.fs.formats.compression.codec import codec_of
from backgate.fs.formats.compression.decoders import Decoders
from backgate.fs.formats.compression.firstpass import FirstPass
from backgate.fs.formats.compression.packed import PackedFile
from backgate.fs.formats.compression.source import Packed, Pieces, Unpacked
from backgate.fs.formats.indexes import open_index
from backgate.fs.formats.tar import schema
from backgate.gateway.source import Data
from backgate.gateway.units import MIB


class Counted:
    """Bytes as a source that notes what was asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)
        self.reads: list[tuple[int, int]] = []

    async def read_at(self, offset: int, length: int) -> Data:
        await trio.lowlevel.checkpoint()
        assert offset >= 0
        assert length >= 0
        data = self.data[offset : offset + length]
        self.reads.append((offset, len(data)))
        return data


def plain_bytes(size: int, seed: int = 1) -> bytes:
    """Return bytes of which some compress well and some do not."""
    chance = random.Random(seed)
    parts: list[bytes] = []
    length = 0
    while length < size:
        parts.append(
            chance.choice(
                [
                    chance.randbytes(chance.randrange(5000)),
                    b"the same words " * chance.randrange(800),
                    bytes(chance.randrange(20_000)),
                ]
            )
        )
        length += len(parts[-1])
    return b"".join(parts)[:size]


async def first_pass(packed: Counted, path: Path) -> None:
    """Make the index `path` of a compressed object."""
    codec = codec_of(packed.data[:6])
    assert codec is not None

    def run() -> None:
        with closing(schema.create(path)) as database:
            FirstPass(PackedFile("object", packed), codec, database).finish()
            database.execute("COMMIT")

    await trio.to_thread.run_sync(run)


@asynccontextmanager
async def unpacked(
    data: bytes, path: Path, memory: int = 64 * MIB
) -> AsyncIterator[tuple[Unpacked, Counted]]:
    """Give a compressed object as a source, after its first pass; `reads` counts from there."""
    packed = Counted(data)
    await first_pass(packed, path)
    packed.reads.clear()
    codec = codec_of(data[:6])
    assert codec is not None
    with closing(open_index(path)) as database:
        pieces = Pieces(4 * MIB, getsizeof=len)
        object_ = Packed(path, "object", packed, codec)
        yield Unpacked(object_, database, Decoders(memory), pieces), packed


def _pieces(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count) or 1
    return [data[at : at + size] for at in range(0, len(data) or 1, size)]


def _zstd(data: bytes, checksum: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=checksum).compress(data)


def _zstd_stream(data: bytes) -> bytes:
    made = zstandard.ZstdCompressor(level=3).compressobj()  # states no size: as from a pipe
    return made.compress(data) + made.flush()


def _xz_blocks(data: bytes) -> bytes:
    """Return one xz stream of many blocks, as `xz -T` makes it."""
    command = ["xz", "-c", "-0", "--block-size=300000", "-T1"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


_SKIPPABLE = b"\x5e\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"table"

SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip of stored blocks": lambda data: gzip.compress(data, compresslevel=0),
    "gzip of many members": lambda data: b"".join(map(gzip.compress, _pieces(data, 40))),
    "gzip and zeros": lambda data: gzip.compress(data) + bytes(700),
    "bzip2": bz2.compress,
    "bzip2 of small blocks": lambda data: bz2.compress(data, 1),
    "bzip2 of many streams": lambda data: b"".join(map(bz2.compress, _pieces(data, 5))),
    "xz of one block": lzma.compress,
    "xz of many blocks": _xz_blocks,
    "xz of many streams": lambda data: bytes(8).join(map(_xz_blocks, _pieces(data, 3))) + bytes(4),
    "xz without a check": lambda data: lzma.compress(data, check=lzma.CHECK_NONE),
    "zstd": _zstd,
    "zstd from a pipe": _zstd_stream,
    "zstd of many frames": lambda data: b"".join(map(_zstd, _pieces(data, 30))) + _SKIPPABLE,
    "zstd behind a skippable frame": lambda data: _SKIPPABLE + _zstd(data, False),
}

"""VHD directories: what is large is decoded beside the event loop, and is what it should be."""

import threading
from pathlib import Path

import pytest
import trio
from support.objects import FolderObjects
from support.xen_orchestra import BLOCK, T1, Writer, disk, footer, header

from backgate.fs.disks.chunks import Chunks
from backgate.fs.disks.vhd_directory import VhdDirectory, open_directory
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data

MIB = 1 << 20


class Threads(FolderObjects):
    """The objects of a folder, which remember the thread in which each was opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.workers = trio.CapacityLimiter(2)
        self.threads: dict[str, int] = {}

    async def renewed(self, key: str) -> ObjectInfo:
        return await self.info(key)

    def opened(self, key: str, stored: Data) -> Data:
        self.threads[key.rpartition("/")[2]] = threading.get_ident()
        return stored


def directory(store: Path, content: bytes) -> tuple[Writer, str]:
    """Write a VHD directory; return its writer and its key."""
    writer = Writer(store)
    writer.back_up(T1, {"root": content})
    return writer, f"{writer.top}/{writer.images['root', T1].data}"


async def opened(files: Threads, key: str) -> VhdDirectory:
    return await open_directory(files, Chunks(64 * MIB), key)


@pytest.mark.slow
async def test_a_table_that_becomes_large_is_unpacked_beside_the_event_loop(tmp_path: Path) -> None:
    writer, key = directory(tmp_path, disk(BLOCK, "one"))
    entries = 16 * MIB  # a disk of 32 TiB
    writer.chunk(f"{key}/footer", footer(entries * BLOCK, b"A" * 16, kind=3))
    writer.chunk(f"{key}/header", header(entries))
    writer.chunk(f"{key}/bat", b"\x80".ljust(entries, b"\0"))
    files = Threads(tmp_path)

    image = await opened(files, key)

    assert image.allocated == BLOCK
    assert files.threads["bat"] != threading.get_ident()


@pytest.mark.slow
async def test_a_block_that_becomes_large_is_unpacked_beside_the_event_loop(tmp_path: Path) -> None:
    content = disk(BLOCK, "one")
    _, key = directory(tmp_path, content)
    files = Threads(tmp_path)
    image = await opened(files, key)

    (piece,) = await image.read(0, BLOCK)

    assert bytes(piece.data or b"") == content
    assert (tmp_path / key / "blocks/0/0").stat().st_size < 32 << 10
    assert files.threads["0"] != threading.get_ident()


async def test_a_table_that_is_too_short_for_its_disk_is_damage(tmp_path: Path) -> None:
    writer, key = directory(tmp_path, disk(BLOCK, "one"))
    writer.chunk(f"{key}/footer", footer(100 * BLOCK, b"A" * 16, kind=3))

    with pytest.raises(Damaged, match="table ends early"):
        await opened(Threads(tmp_path), key)

"""VHD files: fixed, dynamic and differencing, of qemu-img and of our own writer."""

import random
import subprocess
from pathlib import Path

import pytest
from support.extract import read_all
from support.objects import FolderObjects
from support.xen_orchestra import BITMAP, BLOCK, Block, disk, footer, header, vhd_file

from backgate.fs.disk import Disk
from backgate.fs.disks.images import open_vhd
from backgate.fs.disks.vhd_file import VhdFile, open_file
from backgate.gateway.errors import Damaged

FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
A, B, C = b"A" * 16, b"B" * 16, b"C" * 16


async def opened(folder: Path, name: str) -> Disk:
    """Open the disk whose youngest image is that file."""
    objects = FolderObjects(folder)
    return await open_vhd(objects, name, objects.source(await objects.info(name)))


def convert(*arguments: object) -> None:
    """Run `qemu-img convert`."""
    subprocess.run(["qemu-img", "convert", *map(str, arguments)], check=True)


def blocks_of(content: bytes) -> dict[int, Block]:
    """Return every block that is not all zeros."""
    pieces = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    return {n: (BITMAP, one.ljust(BLOCK, b"\0")) for n, one in enumerate(pieces) if any(one)}


@pytest.mark.slow
@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
async def test_an_image_of_qemu_img_equals_the_disk(subformat: str, tmp_path: Path) -> None:
    content = disk(9 * BLOCK, "q")
    (tmp_path / "raw").write_bytes(content)
    options = ["-O", "vpc", "-o", f"subformat={subformat},force_size=on"]
    convert("-f", "raw", *options, tmp_path / "raw", tmp_path / "image.vhd")

    assert await read_all(await opened(tmp_path, "image.vhd")) == content


@pytest.mark.slow
async def test_blocks_in_any_order_with_a_table_that_was_moved_are_read(tmp_path: Path) -> None:
    content = disk(5 * BLOCK, "o")
    head = header(5, table_at=65536)
    data = vhd_file(
        footer(len(content), A, kind=DYNAMIC),
        head,
        blocks_of(content),
        order=[3, 0, 4, 1, 2],
        gap=8192,
    )
    (tmp_path / "image.vhd").write_bytes(data)

    image = await opened(tmp_path, "image.vhd")

    assert await read_all(image) == content
    for offset, length in ((0, 1), (BLOCK - 1, 2), (3 * BLOCK - 700, 2 * BLOCK), (len(content), 5)):
        assert bytes(await image.read_at(offset, length)) == content[offset : offset + length]


@pytest.mark.slow
async def test_sectors_that_a_difference_does_not_have_come_from_its_parent(tmp_path: Path) -> None:
    content = bytearray(disk(2 * BLOCK + 4096, "p"))
    (tmp_path / "base.vhd").write_bytes(
        vhd_file(footer(len(content), A, kind=DYNAMIC), header(3), blocks_of(bytes(content)))
    )
    random_ = random.Random(7)
    for name, identity, parent, parent_name in (
        ("middle.vhd", B, A, "base.vhd"),
        ("top.vhd", C, B, "middle.vhd"),
    ):
        blocks: dict[int, Block] = {}
        for number in (0, 2):
            bitmap, data = random_.randbytes(512), random_.randbytes(BLOCK)
            blocks[number] = (bitmap, data)
            for sector in range(BLOCK // 512):
                at = number * BLOCK + sector * 512
                if bitmap[sector >> 3] & 0x80 >> (sector & 7) and at < len(content):
                    content[at : at + 512] = data[sector * 512 : sector * 512 + 512]
        head = header(3, parent=parent, name=parent_name)
        tail = footer(len(content), identity, kind=DIFFERENCING)
        (tmp_path / name).write_bytes(vhd_file(tail, head, blocks))

    image = await opened(tmp_path, "top.vhd")

    assert await read_all(image) == bytes(content)
    assert image.notes["chain"] == "3"
    for _ in range(50):
        offset, length = random_.randrange(len(content)), random_.randrange(1, 70_000)
        assert bytes(await image.read_at(offset, length)) == content[offset : offset + length]


async def test_a_footer_lost_at_either_end_is_found_at_the_other(tmp_path: Path) -> None:
    content = disk(BLOCK, "f")
    data = vhd_file(footer(len(content), A, kind=DYNAMIC), header(1), blocks_of(content))
    (tmp_path / "head.vhd").write_bytes(bytes(512) + data[512:])
    (tmp_path / "tail.vhd").write_bytes(data[:-512] + bytes(512))

    assert await read_all(await opened(tmp_path, "head.vhd")) == content
    assert await read_all(await opened(tmp_path, "tail.vhd")) == content


async def test_a_fixed_disk_whose_content_looks_like_a_vhd_is_still_fixed(tmp_path: Path) -> None:
    inner = vhd_file(footer(BLOCK, A, kind=DYNAMIC), header(1), {})
    (tmp_path / "image.vhd").write_bytes(inner + footer(len(inner), B, kind=FIXED))

    assert await read_all(await opened(tmp_path, "image.vhd")) == inner


async def test_parents_that_form_a_loop_are_an_error(tmp_path: Path) -> None:
    for name, identity, parent, parent_name in (("a.vhd", A, B, "b.vhd"), ("b.vhd", B, A, "a.vhd")):
        head = header(1, parent=parent, name=parent_name)
        tail = footer(BLOCK, identity, kind=DIFFERENCING)
        (tmp_path / name).write_bytes(vhd_file(tail, head, {}))

    with pytest.raises(Damaged, match="loop"):
        await opened(tmp_path, "a.vhd")


async def test_a_parent_that_is_another_disk_or_outside_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    base = vhd_file(footer(BLOCK, A, kind=DYNAMIC), header(1), {})
    (tmp_path / "base.vhd").write_bytes(base)
    (tmp_path / "in" / "other.vhd").write_bytes(base)
    for name in ("other.vhd", "../../base.vhd", "absent.vhd"):
        head = header(1, parent=B, name=name)
        tail = footer(BLOCK, C, kind=DIFFERENCING)
        (tmp_path / "in" / "child.vhd").write_bytes(vhd_file(tail, head, {}))

        with pytest.raises(Damaged, match="parent is not there"):
            await opened(tmp_path, "in/child.vhd")


@pytest.mark.parametrize(
    ("size", "entries", "table_at"),
    [
        (1 << 60, 1, 1536),
        (BLOCK * 9, 1, 1536),
        (BLOCK, 1, 1 << 60),
        (BLOCK, 1, 0),
        (1 << 40, 1 << 20, 1536),
    ],
)
async def test_sizes_and_places_that_cannot_be_are_an_error(
    size: int, entries: int, table_at: int, tmp_path: Path
) -> None:
    head = header(entries, table_at=table_at)
    data = footer(size, A, kind=DYNAMIC) + head + bytes(4096) + footer(size, A, kind=DYNAMIC)
    (tmp_path / "image.vhd").write_bytes(data)

    with pytest.raises(Damaged):
        await opened(tmp_path, "image.vhd")


async def test_a_block_outside_of_the_file_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    content = disk(2 * BLOCK, "x")
    data = bytearray(vhd_file(footer(len(content), A, kind=DYNAMIC), header(2), blocks_of(content)))
    for sector in (0, 2, 0x7FFF_FFFF, (len(data) >> 9) - 1):
        data[1536:1540] = sector.to_bytes(4, "big")
        (tmp_path / "image.vhd").write_bytes(data)
        image = await opened(tmp_path, "image.vhd")

        with pytest.raises(Damaged):
            await image.read_at(0, 4096)
        assert bytes(await image.read_at(BLOCK, BLOCK)) == content[BLOCK:]


@pytest.mark.slow
async def test_blocks_that_follow_each_other_are_read_together_with_their_bitmaps(
    tmp_path: Path,
) -> None:
    content = disk(6 * BLOCK, "r")
    base = vhd_file(footer(len(content), A, kind=DYNAMIC), header(6), {})
    (tmp_path / "base.vhd").write_bytes(base)
    head = header(6, parent=A, name="base.vhd")
    tail = footer(len(content), B, kind=DIFFERENCING)
    (tmp_path / "top.vhd").write_bytes(vhd_file(tail, head, blocks_of(content)))
    objects = FolderObjects(tmp_path)
    image = await open_vhd(objects, "top.vhd", objects.source(await objects.info("top.vhd")))
    await image.read_at(0, 1)
    objects.reads.clear()

    assert bytes(await image.read_at(0, 6 * BLOCK)) == content
    assert len(objects.reads) == 1


async def test_what_an_image_keeps_of_its_table_is_little_however_large_the_disk(
    tmp_path: Path,
) -> None:
    count = 1 << 20  # blocks of a disk of 2 TiB
    tail = footer(count * BLOCK, A, kind=DYNAMIC)
    (tmp_path / "image.vhd").write_bytes(vhd_file(tail, header(count), {}))
    objects = FolderObjects(tmp_path)
    source = objects.source(await objects.info("image.vhd"))
    image = await open_file("image.vhd", source, may_be_fixed=False)
    assert isinstance(image, VhdFile)

    for at in range(0, image.size, 8 << 30):
        assert await image.extents(at, BLOCK) == [(at, at + BLOCK, False)]

    assert sum(map(len, image._pages.values())) <= 256 << 10

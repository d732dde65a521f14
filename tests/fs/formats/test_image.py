"""Disk images: which objects are some, what is in each kind, and what may not be had."""

import lzma
import os
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zstandard
from contracts.format_contract import found, surroundings
from support import xen_orchestra as vhd
from support.extract import content, entries, find
from support.file_systems import unpacked
from support.objects import FolderObjects
from support.repositories import PLACES, on_disk
from support.trees import run

from backgate.fs.disk_tree import DiskTree
from backgate.fs.formats.image.format import ImageFormat
from backgate.fs.formats.image.kind import is_image
from backgate.fs.gateway_tree import open_gateway_tree
from backgate.fs.tree import Tree
from backgate.gateway.errors import Damaged
from backgate.gateway.places import places_of
from backgate.gateway.repository import open_repository

SIZE = 8 << 20  # bytes of the disk in the samples
REQUESTS_TO_LIST = 12  # fewer must do to open an ext4 disk and list its root
REQUESTS_TO_READ = 6  # and fewer than that, to read 100 KB more


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of which some is random, some compressible, and most a hole."""
    path = tmp_path_factory.mktemp("disk") / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in (0, 1 << 20, (3 << 20) + 512):
            file.seek(at)
            file.write(os.urandom(300_000))
        file.seek(5 << 20)
        file.write(b"compress me " * 100_000)
    return path


@asynccontextmanager
async def opened(store: Path, name: str) -> AsyncIterator[tuple[Tree, FolderObjects]]:
    async with surroundings(store, store.parent / "cache") as lent:
        format_ = ImageFormat(lent)
        (backup,) = [one for one in await found(format_) if one.key == name]
        assert backup.is_complete, backup.reason
        assert isinstance(lent.objects, FolderObjects)
        async with format_.open(backup) as tree:
            yield tree, lent.objects


async def disk_of(store: Path, name: str) -> bytes:
    async with opened(store, name) as (tree, _):
        return await content(tree, b"disk.raw")


async def refusal_of(store: Path, name: str) -> str:
    """Return what is said where there is no disk to be had."""
    async with opened(store, name) as (tree, _):
        names = [entry.name async for entry in entries(tree, await tree.root())]
        assert b"disk.raw" not in names
        return (await content(tree, b"README.txt")).decode()


@pytest.mark.parametrize(
    "key", ["a.raw", "x/y.IMG", "a.vhd", "a.vhdx", "a.qcow2", "a.vmdk", "a.iso", "a.raw.gz",
            "a.img.xz", "a.qcow2.zst"],
)  # fmt: skip
def test_images_are_known_by_their_suffix(key: str) -> None:
    assert is_image(key)


@pytest.mark.parametrize(
    "key", ["a.tar", "raw", "a.raw.tmp", "a-flat.vmdk", "a-s001.vmdk", "a-000001-delta.vmdk",
            "xo-vm-backups/u/vdis/j/d/20260101T000000Z.vhd", "xo/xo-vm-backups/u/a.vhd", ""],
)  # fmt: skip
def test_others_and_parts_of_others_are_none(key: str) -> None:
    assert not is_image(key)


KINDS = {
    "qcow2": "-O qcow2",
    "compressed.qcow2": "-c -O qcow2",
    "zstd.qcow2": "-c -O qcow2 -o compression_type=zstd",
    "extended.qcow2": "-O qcow2 -o extended_l2=on,cluster_size=64k",
    "old.qcow2": "-O qcow2 -o compat=0.10",
    "vmdk": "-O vmdk",
    "stream.vmdk": "-O vmdk -o subformat=streamOptimized",
    "flat.vmdk": "-O vmdk -o subformat=monolithicFlat",
    "split.vmdk": "-O vmdk -o subformat=twoGbMaxExtentSparse",
    "vhdx": "-O vhdx",
    "fixed.vhdx": "-O vhdx -o subformat=fixed",
    "vhd": "-O vpc -o force_size",
    "fixed.vhd": "-O vpc -o subformat=fixed,force_size",
    "img": "-O qcow2",
    "raw": "-O raw",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
async def test_the_disk_in_an_image_is_that_which_was_put_there(
    name: str, store: Path, disk: Path
) -> None:
    run("qemu-img", "convert", "-f", "raw", *KINDS[name].split(), disk, store / f"vm.{name}")

    assert await disk_of(store, f"vm.{name}") == disk.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qcow2", "vmdk"])
async def test_an_image_lies_over_its_parents(kind: str, store: Path, disk: Path) -> None:
    (store / "base").mkdir()
    run("qemu-img", "convert", "-f", "raw", "-O", kind, disk, store / f"base/base.{kind}")
    expected = bytearray(disk.read_bytes())
    for name, below, at in (
        ("one", f"base/base.{kind}", 70_144),
        ("two", f"one.{kind}", 2_000_896),
    ):
        path = store / f"{name}.{kind}"
        run("qemu-img", "create", "-q", "-f", kind, "-F", kind, "-b", below, path)
        run("qemu-io", "-f", kind, "-c", f"write -q -P 7 {at} 65536", path)
        expected[at : at + 65536] = b"\7" * 65536

    assert await disk_of(store, f"two.{kind}") == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["../outside.qcow2", "/etc/passwd", "missing.qcow2", "a/../../outside.qcow2"]
)
async def test_a_parent_outside_of_the_repository_is_not_had(
    name: str, store: Path, disk: Path
) -> None:
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, store.parent / "outside.qcow2")
    run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", name,
        store / "vm.qcow2", str(SIZE))  # fmt: skip

    assert "not found" in await refusal_of(store, "vm.qcow2")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qcow2", "vmdk"])
@pytest.mark.parametrize("name", ["vm.raw", "vm.img", "vm.iso"])
async def test_a_guest_cannot_make_another_disk_of_its_own(
    kind: str, name: str, store: Path, disk: Path
) -> None:
    run("qemu-img", "convert", "-f", "raw", "-O", kind, disk, store / "other.img")
    run("qemu-img", "create", "-q", "-f", kind, "-F", kind, "-b", "other.img", store / name)
    os.truncate(store / name, 1 << 20)

    assert await disk_of(store, name) == (store / name).read_bytes()


@pytest.mark.slow
async def test_a_guest_cannot_make_a_difference_of_its_disk(store: Path, disk: Path) -> None:
    (store / "other.vhd").write_bytes(disk.read_bytes())
    head = vhd.header(1, parent=b"P" * 16, name="other.vhd")
    tail = vhd.footer(vhd.BLOCK, b"C" * 16, kind=4)
    (store / "vm.img").write_bytes(vhd.vhd_file(tail, head, {}).ljust(1 << 20, b"\0") + tail)

    assert await disk_of(store, "vm.img") == (store / "vm.img").read_bytes()


@pytest.mark.slow
async def test_a_guest_cannot_make_another_disk_of_a_fixed_vhd(store: Path, disk: Path) -> None:
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, store / "other.qcow2")
    run("qemu-img", "convert", "-f", "raw", *KINDS["fixed.vhd"].split(), disk, store / "vm.vhd")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "other.qcow2",
        store / "head.qcow2")  # fmt: skip
    written = bytearray((store / "vm.vhd").read_bytes())
    written[:65536] = (store / "head.qcow2").read_bytes()[:65536]
    (store / "vm.vhd").write_bytes(written)

    assert await disk_of(store, "vm.vhd") == written[: len(disk.read_bytes())]


@pytest.mark.slow
async def test_a_difference_without_its_parent_says_which_is_missing(store: Path) -> None:
    head = vhd.header(1, parent=b"P" * 16, name="base.vhd")
    tail = vhd.footer(vhd.BLOCK, b"C" * 16, kind=4)
    (store / "top.vhd").write_bytes(vhd.vhd_file(tail, head, {}))

    assert "looked for base.vhd" in await refusal_of(store, "top.vhd")


@pytest.mark.slow
async def test_a_parent_that_has_changed_since_is_refused(store: Path, disk: Path) -> None:
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", disk, store / "base.vmdk")
    run("qemu-img", "create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", "base.vmdk",
        store / "vm.vmdk")  # fmt: skip
    assert await disk_of(store, "vm.vmdk") == disk.read_bytes()
    run("qemu-io", "-f", "vmdk", "-c", "write -q 0 65536", store / "base.vmdk")

    assert "its parent has changed since" in await refusal_of(store, "vm.vmdk")


@pytest.mark.slow
async def test_an_image_over_itself_is_refused(store: Path) -> None:
    run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "vm.qcow2",
        store / "vm.qcow2", str(SIZE))  # fmt: skip

    assert "deeper than" in await refusal_of(store, "vm.qcow2")


def point_qcow2_outside(data: bytearray) -> None:
    (first,) = struct.unpack_from(">Q", data, 40)
    (second,) = struct.unpack_from(">Q", data, first)
    struct.pack_into(">Q", data, second & (1 << 56) - 512, 1 << 63 | 1 << 50)


def point_vmdk_outside(data: bytearray) -> None:
    for at in (48, 56):  # both copies of the table
        (directory,) = struct.unpack_from("<Q", data, at)
        (table,) = struct.unpack_from("<I", data, directory * 512)
        struct.pack_into("<I", data, table * 512, (1 << 31) - 1)


def point_vhdx_outside(data: bytearray) -> None:
    name = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le  # of the table of blocks
    (table,) = struct.unpack_from("<Q", data, data.index(name, 192 << 10) + len(name))
    is_present = 6
    struct.pack_into("<Q", data, table, 1 << 60 | is_present)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "point_outside"),
    [
        ("qcow2", point_qcow2_outside),
        ("vmdk", point_vmdk_outside),
        ("vhdx", point_vhdx_outside),
    ],
)
async def test_a_table_that_points_outside_of_its_image_is_damage(
    kind: str, point_outside: Callable[[bytearray], None], store: Path, disk: Path
) -> None:
    run("qemu-img", "convert", "-f", "raw", *KINDS[kind].split(), disk, store / f"vm.{kind}")
    data = bytearray((store / f"vm.{kind}").read_bytes())
    point_outside(data)
    (store / f"vm.{kind}").write_bytes(data)

    with pytest.raises(Damaged, match=r"beyond end|invalid offset"):
        await disk_of(store, f"vm.{kind}")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["gz", "xz", "zst"])
async def test_an_image_compressed_as_a_whole_is_read_like_others(
    suffix: str, store: Path, disk: Path
) -> None:
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, store.parent / "plain")
    plain = (store.parent / "plain").read_bytes()
    if suffix == "gz":
        run("sh", "-c", f"gzip -1 < {store.parent}/plain > {store}/vm.qcow2.gz")
    else:
        pack = lzma.compress if suffix == "xz" else zstandard.compress
        (store / f"vm.qcow2.{suffix}").write_bytes(pack(plain))

    assert await disk_of(store, f"vm.qcow2.{suffix}") == disk.read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.raw", b"", "empty"),
        ("a.img", b"x" * 1000, "whole number of sectors"),
        ("a.vhd", b"conectix" + bytes(1016), "without a footer"),
        ("a.qcow2", b"QFI\xfb\0\0\0\3" + bytes(71) + b"\2" + bytes(432), "corrupt"),
    ],
)
async def test_an_image_that_is_not_whole_is_not_shown(
    name: str, data: bytes, reason: str, store: Path
) -> None:
    (store / name).write_bytes(data)
    async with surroundings(store, store.parent / "cache") as lent:
        (backup,) = await found(ImageFormat(lent))

    assert not backup.is_complete
    assert reason in backup.reason


@pytest.mark.slow
async def test_garbage_after_a_magic_is_refused_with_its_reason(store: Path) -> None:
    for name, magic in (
        ("a.qcow2", b"QFI\xfb\0\0\0\2"),
        ("a.vmdk", b"KDMV"),
        ("a.vhdx", b"vhdxfile"),
    ):
        (store / name).write_bytes(magic + b"\xff" * 70_000)

        assert "cannot be read: " in await refusal_of(store, name)


@pytest.mark.slow
async def test_few_requests_list_an_ext4_disk_and_fewer_read_a_file(
    store: Path, tmp_path: Path
) -> None:
    source = tmp_path / "from"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_bytes(os.urandom(100_000))
    for number in range(300):
        (source / f"a/{number}").write_bytes(b"x" * number)
    run("truncate", "-s", "2G", store / "vm.raw")
    run("mkfs.ext4", "-q", "-d", source, store / "vm.raw")

    async with opened(store, "vm.raw") as (tree, objects):
        objects.reads.clear()
        root = await find(tree, b"partitions/0-ext4")
        assert [entry.name async for entry in entries(tree, root)] == [b"lost+found", b"a"]
        assert len(objects.reads) < REQUESTS_TO_LIST
        objects.reads.clear()
        assert len(await content(tree, b"partitions/0-ext4/a/b/file")) == 100_000
        assert len(objects.reads) < REQUESTS_TO_READ


@pytest.mark.slow
async def test_a_disk_that_was_looked_into_before_costs_no_request(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    names = ("ext4-crashed", "xfs-crashed")
    for name in names:
        unpacked(name, tmp_path).rename(tmp_path / f"store/{name}.img")
    config = on_disk(tmp_path)
    places = places_of(config, {name: str(tmp_path / name) for name in PLACES})
    asked = []

    for _ in range(2):
        async with (
            open_repository(config, places, None, writable=False) as repository,
            open_gateway_tree(repository, "backups") as gateway,
        ):
            for name in names:
                tree = (await find(gateway.tree, f"image/{name}".encode())).junction
                assert tree is not None
                (volume,) = [one async for one in entries(tree, await find(tree, b"partitions"))]
                assert len([one async for one in entries(tree, volume)]) > 1
            asked.append(repository.store.counters.requests["get"])

    assert asked[0] > 0
    assert asked[1] == 0


@pytest.mark.slow
async def test_nothing_is_parsed_for_the_disk_itself(store: Path, disk: Path) -> None:
    (store / "vm.raw").write_bytes(disk.read_bytes())
    async with opened(store, "vm.raw") as (tree, objects):
        objects.reads.clear()
        names = [entry.name async for entry in entries(tree, await tree.root())]
        assert names == [b"disk.raw", b"partitions", b"volumes"]
        assert objects.reads == []
        assert isinstance(tree, DiskTree)
        assert tree._parser._worker is None


@pytest.mark.slow
async def test_a_file_system_that_cannot_be_opened_is_shown_as_its_bytes(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run("truncate", "-s", "8M", store / "vm.raw")
    run("mkfs.ext4", "-q", store / "vm.raw")
    data = bytearray((store / "vm.raw").read_bytes())
    data[1024 + 88 : 1024 + 90] = b"\xff\xff"  # the size of an inode
    (store / "vm.raw").write_bytes(data)

    async with opened(store, "vm.raw") as (tree, _):
        said = await content(tree, b"partitions/0-ext4/README.txt")
        assert b"cannot be opened" in said
        assert await content(tree, b"partitions/0-ext4/volume.raw") == data
    assert "shown as volume.raw only" in caplog.text


@pytest.mark.slow
async def test_what_holds_no_files_says_so_and_shows_its_bytes(store: Path) -> None:
    run("truncate", "-s", "8M", store / "vm.raw")
    run("mkswap", store / "vm.raw")
    async with opened(store, "vm.raw") as (tree, _):
        (volume,) = [one async for one in entries(tree, await find(tree, b"partitions"))]
        said = await content(tree, b"partitions/" + volume.name + b"/README.txt")
        assert b"swap" in said

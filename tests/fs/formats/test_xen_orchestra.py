"""Repositories of Xen Orchestra: those it wrote itself, and variants written as it writes them."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from contracts.format_contract import found, surroundings
from support.extract import content, entries, find, read_all
from support.objects import FolderObjects
from support.xen_orchestra import (
    BLOCK,
    KEY,
    T1,
    T2,
    T3,
    Writer,
    changed,
    disk,
    manifest,
    unpack_sample,
)

from backgate.fs.format import Backup
from backgate.fs.formats.xen_orchestra.format import XenOrchestraFormat
from backgate.fs.tree import Entry, Tree

TIMES = {"2026-08-01T01-00-00Z": "t1", "2026-08-02T01-00-00Z": "t2", "2026-08-03T01-00-00Z": "t3"}
DISK_A, DISK_B = "root", "data"


@asynccontextmanager
async def opened(
    store: Path, cache: Path, key: bytes | None = KEY
) -> AsyncIterator[XenOrchestraFormat]:
    async with surroundings(store, cache, key) as lent:
        yield XenOrchestraFormat(lent)


async def disks(format_: XenOrchestraFormat, backup: Backup) -> dict[str, bytes]:
    """Return the bytes of each disk of a backup, by the name of its directory."""
    async with format_.open(backup) as tree:
        names = [entry.name async for entry in entries(tree, await find(tree, b"disks"))]
        return {
            name.decode(): await content(tree, b"disks/" + name + b"/disk.raw") for name in names
        }


async def all_disks(store: Path, cache: Path) -> dict[str, dict[str, bytes]]:
    """Return the disks of all complete backups, by time."""
    async with opened(store, cache) as format_:
        return {
            one.path[-1]: await disks(format_, one)
            for one in await found(format_)
            if one.is_complete
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vhd", "encrypted", "partial"])
async def test_each_disk_of_a_real_repository_is_what_was_backed_up(
    name: str, tmp_path: Path
) -> None:
    unpack_sample(name, tmp_path / "store")

    shown = await all_disks(tmp_path / "store", tmp_path / "cache")

    assert len(shown) == (1 if name == "partial" else 3)
    for time, by_name in shown.items():
        for disk_name, data in by_name.items():
            expected = manifest()["disks"][f"{disk_name[-1]}-{TIMES[time]}"]
            assert hashlib.sha256(data).hexdigest() == expected["sha256"]  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vhd", "encrypted"])
async def test_each_file_on_the_disks_of_a_real_repository_is_what_was_backed_up(
    name: str, tmp_path: Path
) -> None:
    unpack_sample(name, tmp_path / "store")
    below = {"a": b"disks/xvda-lab-vm disk a/partitions/1-rootfs", "b": b"disks/xvdb-lab-vm disk b"}
    below["b"] += b"/partitions/0-ext4"

    async with opened(tmp_path / "store", tmp_path / "cache") as format_:
        for backup in await found(format_):
            async with format_.open(backup) as tree:
                for letter, place in below.items():
                    expected = manifest()["snapshots"][TIMES[backup.path[-1]]][letter]["files"]
                    assert await files_below(tree, await find(tree, place)) == expected


async def files_below(tree: Tree, directory: Entry, path: str = "") -> dict[str, object]:
    """Return the files and symlinks below `directory`, as the manifest describes them."""
    shown: dict[str, object] = {}
    async for entry in entries(tree, directory):
        below = f"{path}/{os.fsdecode(entry.name)}"
        if entry.is_directory:
            shown |= await files_below(tree, entry, below)
        elif entry.is_symlink:
            shown[below] = {"symlink": os.fsdecode(entry.target or b"")}
        else:
            async with tree.open(entry) as source:
                digest = hashlib.sha256(await read_all(source)).hexdigest()
            shown[below] = {"size": entry.size, "sha256": digest}
    return shown


async def test_metadata_backups_are_shown_as_files(tmp_path: Path) -> None:
    unpack_sample("meta", tmp_path / "store")

    async with opened(tmp_path / "store", tmp_path / "cache") as format_:
        shown = {}
        for backup in await found(format_):
            async with format_.open(backup) as tree:
                async for entry in entries(tree, await tree.root()):
                    shown["/".join(backup.path[1:]), entry.name] = await content(tree, entry.name)

    config = "xo-config-backups/lab metadata job/2026-11-22T11-30-5"
    assert shown[config + "4Z", b"data.json"] == b'{"acls":[],"users":[{"email":"admin@lab"}]}'
    assert shown[config + "5Z", b"data"] == b"encrypted-xo-config"
    pool = "xo-pool-metadata-backups/lab pool/2026-11-22T11-30-55Z"
    assert shown[pool, b"data"] == b'<?xml version="1.0"?><database/>'
    assert b"lab schedule" in shown[pool, b"metadata.json"]


async def test_a_run_that_was_killed_is_listed_as_unfinished(tmp_path: Path) -> None:
    unpack_sample("partial", tmp_path / "store")

    async with opened(tmp_path / "store", tmp_path / "cache") as format_:
        backups = await found(format_)

    assert [(one.path[-1], one.is_complete) for one in backups] == [
        ("2026-08-01T01-00-00Z", True),
        ("2026-08-02T01-00-00Z", False),
    ]
    assert "20260802T010000Z.json is missing" in backups[1].reason


VARIANTS = [
    {"directories": False},
    {"filter": None},
    {"filter": "gzip"},
    {"filter": "brotli", "alias": False},
    {"filter": "gzip", "algorithm": "aes-256-gcm"},
    {"filter": None, "algorithm": "chacha20-poly1305"},
]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_a_chain_of_grown_disks_equals_the_disks(
    variant: dict[str, object], tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "store", **variant)  # type: ignore[arg-type]
    one = disk(3 * BLOCK + 512, "one")
    two = changed(one, 1, "two")
    three = changed(two, 4, "three", size=5 * BLOCK)
    expected = {T1: one, T2: two, T3: three}
    for time, data in expected.items():
        writer.back_up(time, {DISK_A: data, DISK_B: data[:BLOCK]})

    shown = await all_disks(tmp_path / "store", tmp_path / "cache")

    assert [by_name["xvda-root"] for by_name in shown.values()] == [one, two, three]
    assert {by_name["xvdb-data"] for by_name in shown.values()} == {one[:BLOCK]}


async def test_st_blocks_of_a_disk_count_what_its_images_have(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store", filter=None)
    writer.back_up(T1, {DISK_A: disk(BLOCK, "a") + bytes(9 * BLOCK)})

    async with opened(tmp_path / "store", tmp_path / "cache") as format_:
        (backup,) = await found(format_)
        async with format_.open(backup) as tree:
            raw = await find(tree, b"disks/xvda-root/disk.raw")

    assert raw.size == 10 * BLOCK
    assert raw.allocated == BLOCK


async def test_a_long_chain_is_opened_in_a_few_rounds(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    writer = Writer(tmp_path / "store", filter=None)
    for day in range(1, 21):
        writer.back_up(f"202608{day:02}T010000Z", {DISK_A: bytes([day]) * BLOCK})

    async with opened(tmp_path / "store", tmp_path / "cache") as format_:
        newest = max(await found(format_), key=lambda one: one.time_ns)
        assert isinstance(format_.surroundings.objects, FolderObjects)
        format_.surroundings.objects.takes = 1.0
        begun = trio.current_time()
        async with format_.open(newest):
            took = trio.current_time() - begun

    assert took < 15  # 20 images, each an alias and then what it leads to


async def test_a_full_image_is_opened_alone(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store", filter=None)
    for time in (T1, T2, T3):
        writer.back_up(time, {DISK_A: disk(BLOCK, time)}, full=True)

    async with opened(tmp_path / "store", tmp_path / "cache") as format_:
        newest = max(await found(format_), key=lambda one: one.time_ns)
        objects = format_.surroundings.objects
        assert isinstance(objects, FolderObjects)
        begun = len(objects.reads)
        async with format_.open(newest):
            read = {key for key, _, _ in objects.reads[begun:] if "/vdis/" in key}

    assert not [key for key in read if T3 not in key]

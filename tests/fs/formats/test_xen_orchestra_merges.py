"""Merges of Xen Orchestra, interrupted after each of their steps, and while somebody reads."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from contracts.format_contract import found, surroundings
from support.extract import content, find
from support.objects import FolderObjects
from support.xen_orchestra import BLOCK, KEY, T1, T2, T3, Writer, changed, disk
from support.xen_orchestra_merge import merge

from backgate.fs.formats.xen_orchestra.format import XenOrchestraFormat
from backgate.gateway.errors import Damaged, Denied, FileError, NotFound, Unreachable
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source

T4 = "20260804T010000Z"
DISK = b"disks/xvda-root/disk.raw"
VARIANTS = [
    {"directories": False},
    {"filter": "gzip"},
    {"filter": None, "algorithm": "chacha20-poly1305"},
]


def repository(store: Path, variant: dict[str, object]) -> tuple[Writer, bytes, bytes]:
    """Write four backups, of which the first two are then forgotten; returns the other contents."""
    writer = Writer(store, **variant)  # type: ignore[arg-type]
    one = disk(3 * BLOCK, "one")
    two = changed(changed(one, 1, "two"), 2, "two")
    three = changed(changed(two, 1, "three"), 3, "three", size=4 * BLOCK)
    four = changed(three, 0, "four")
    for time, data in {T1: one, T2: two, T3: three, T4: four}.items():
        writer.back_up(time, {"root": data})
    for time in (T1, T2):
        (store / writer.top / f"{time}.json").unlink()
    return writer, three, four


async def shown(store: Path, cache: Path) -> list[bytes]:
    """Return the disk of each complete backup."""
    async with surroundings(store, cache, KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        contents = []
        for one in await found(format_):
            if one.is_complete:
                async with format_.open(one) as tree:
                    contents.append(await content(tree, DISK))
        return contents


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_a_merge_interrupted_after_any_step_harms_no_backup(
    variant: dict[str, object], tmp_path: Path
) -> None:
    writer, *expected = repository(tmp_path / "store", variant)

    for step in merge(writer, "root", [T1, T2, T3]):
        assert await shown(tmp_path / "store", tmp_path / "cache") == expected, step


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_old_releases_state_of_a_merge_is_understood(
    variant: dict[str, object], tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "store", **variant)  # type: ignore[arg-type]
    one = disk(3 * BLOCK, "one")
    two = changed(changed(one, 1, "two"), 2, "two")
    for time, data in {T1: one, T2: two}.items():
        writer.back_up(time, {"root": data})
    (tmp_path / "store" / writer.top / f"{T1}.json").unlink()

    for step in merge(writer, "root", [T1, T2], is_old=True):
        assert await shown(tmp_path / "store", tmp_path / "cache") == [two], step


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_an_open_disk_stays_readable_while_its_images_are_merged(
    variant: dict[str, object], tmp_path: Path
) -> None:
    writer, *expected = repository(tmp_path / "store", variant)
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        backups = [one for one in await found(format_) if one.is_complete]
        async with format_.open(backups[0]) as three, format_.open(backups[1]) as four:
            for step in merge(writer, "root", [T1, T2, T3]):
                assert await content(three, DISK) == expected[0], step
                assert await content(four, DISK) == expected[1], step


@pytest.mark.slow
async def test_a_block_that_is_gone_without_a_merge_is_an_error(tmp_path: Path) -> None:
    writer, *_ = repository(tmp_path / "store", {"filter": "gzip"})
    path = tmp_path / "store" / writer.block_path(writer.images["root", T3], 1)
    path.unlink()

    with pytest.raises(Damaged, match="blocks/0/1"):
        await shown(tmp_path / "store", tmp_path / "cache")


async def test_an_image_that_is_gone_is_said_by_its_name(tmp_path: Path) -> None:
    writer, *_ = repository(tmp_path / "store", {"filter": "gzip"})
    (tmp_path / "store" / writer.top / writer.images["root", T2].path).unlink()

    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        backup = next(one for one in await found(format_) if one.is_complete)
        async with format_.open(backup) as tree:
            reason = await content(tree, b"disks/xvda-root/README.txt")
            assert b"20260802T010000Z.alias.vhd" in reason


class LaggingObjects(FolderObjects):
    """Tells of objects as they were when it was made, until somebody has it confirmed."""

    def __init__(self, root: Path, old: Sequence[ObjectInfo]) -> None:
        super().__init__(root)
        self.old = {info.key: info for info in old}

    async def info(self, key: str) -> ObjectInfo:
        await trio.lowlevel.checkpoint()
        if key not in self.old:
            raise NotFound(f"no object {key!r}", key=key)
        return self.old[key]

    async def renewed(self, key: str) -> ObjectInfo:
        self.old.pop(key, None)
        self.old[key] = await self.info_now(key)
        return self.old[key]

    async def confirm(self, prefix: str) -> None:
        for key in {*self._keys(), *self.old}:
            if key.startswith(prefix):
                self.old.pop(key, None)
                with suppress(NotFound):
                    self.old[key] = await self.info_now(key)


async def test_a_block_that_was_moved_just_now_is_read_as_it_is(tmp_path: Path) -> None:
    writer, *expected = repository(tmp_path / "store", {"filter": None})
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        assert isinstance(lent.objects, FolderObjects)
        lagging = LaggingObjects(tmp_path / "store", await lent.objects.all())
        format_ = XenOrchestraFormat(replace(lent, objects=lagging))
        oldest = writer.images["root", T1]
        for step in merge(writer, "root", [T1, T2, T3]):
            if step == "block 2 moved":
                break
        at = f"{writer.top}/{writer.images['root', T2].data}"
        await lagging.confirm(f"{at}/blocks")  # of what it lay in, more is known than of where to
        await lagging.confirm(f"{writer.top}/{oldest.path.rpartition('/')[0]}/.")
        (backup, *_) = [one for one in await found(format_) if one.is_complete]
        async with format_.open(backup) as tree:
            assert await content(tree, DISK) == expected[0]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_a_deleted_backup_that_is_open_is_right_until_others_are_merged_into_it(
    variant: dict[str, object], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    writer, one = two_backups(store, variant)
    async with surroundings(store, tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        backup = min(await found(format_), key=lambda one: one.time_ns)
        async with format_.open(backup) as tree:
            assert await content(tree, DISK) == one
            (store / writer.top / f"{T1}.json").unlink()
            assert await content(tree, DISK) == one
            for step in merge(writer, "root", [T1, T2]):
                with suppress(Damaged):
                    assert await content(tree, DISK) == one, step
            with pytest.raises(Damaged, match=r"deleted|missing"):
                await content(tree, DISK)


def two_backups(store: Path, variant: dict[str, object]) -> tuple[Writer, bytes]:
    """Write two backups; returns what the first holds."""
    writer = Writer(store, **variant)  # type: ignore[arg-type]
    one = disk(2 * BLOCK, "one")
    writer.back_up(T1, {"root": one})
    writer.back_up(T2, {"root": changed(one, 1, "two")})
    return writer, one


class Meanwhile(FolderObjects):
    """Objects of which something becomes of a sudden when so many have been asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = 0
        self.happens: dict[int, Callable[[], object]] = {}

    async def info(self, key: str) -> ObjectInfo:
        self.asked += 1
        if self.asked in self.happens:
            self.happens[self.asked]()
        return await super().info(key)

    async def below(self, prefix: str, after: str = "") -> Sequence[ObjectInfo]:
        keys = sorted(key for key in self._keys() if key.startswith(prefix) and key > after)
        return [await self.info_now(key) for key in keys]  # a listing is of one moment


async def opened_meanwhile(
    store: Path, writer: Writer, begins: int, ends: int
) -> tuple[list[bytes | str], int]:
    """Read both backups that are left, while all is merged, and cleaned up, at so many questions.

    Returns the disks, or why not, and how many questions there were.
    """
    objects = Meanwhile(store)
    async with surroundings(store, store.parent / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(replace(lent, objects=objects))
        known = [info for info in await objects.all() if format_.is_landmark(info.key)]
        backups = [one for one in await format_.backups(known) if one.is_complete]
        going = merge(writer, "root", [T1, T2, T3])
        objects.asked = 0
        objects.happens[begins] = lambda: next(step for step in going if step == "footer written")
        objects.happens[ends] = lambda: list(going)
        shown: list[bytes | str] = []
        for backup in backups:
            async with format_.open(backup) as tree:
                try:
                    shown.append(await content(tree, DISK))
                except FileError:  # it has no disk.raw
                    shown.append((await content(tree, b"disks/xvda-root/README.txt")).decode())
    return shown, objects.asked


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS[:2], ids=str)
async def test_a_merge_that_ends_at_any_moment_of_the_opening_harms_no_backup(
    variant: dict[str, object], tmp_path: Path
) -> None:
    writer, *expected = repository(tmp_path / "made", variant)
    begins, most = 1, 2
    while begins < most:
        for ends in {begins + 1, begins + 4}:
            store = tmp_path / f"{begins}-{ends}"
            shutil.copytree(tmp_path / "made", store)
            shown, most = await opened_meanwhile(store, replace(writer, store=store), begins, ends)
            assert shown == expected, (begins, ends)
            shutil.rmtree(store)
        begins += 3


class Guarded(FolderObjects):
    """Objects of a store that can be asked for what is new, or cannot."""

    is_away = False
    asked = 0

    async def renewed(self, key: str) -> ObjectInfo:
        self.asked += 1
        if self.is_away:
            raise Unreachable("it is away")
        return await super().renewed(key)


async def test_only_blocks_stored_after_the_backup_was_made_are_doubted(tmp_path: Path) -> None:
    writer, one = two_backups(tmp_path / "store", {"filter": None})
    block = tmp_path / "store" / writer.block_path(writer.images["root", T1], 1)
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (1e9, 1e9 + (5 if path.suffix == ".json" else 0)))
    os.utime(block, (1e9, 1e9 + 4))
    objects = Guarded(tmp_path / "store")
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(replace(lent, objects=objects))
        backup = min(await found(format_), key=lambda one: one.time_ns)
        async with format_.open(backup) as tree:
            raw = await find(tree, DISK)
            async with tree.open(raw) as source:
                objects.is_away = True
                assert await source.read_at(0, 4096) == one[:4096]
                assert not objects.asked
                with pytest.raises(Unreachable):
                    await source.read_at(BLOCK, 4096)
                objects.is_away = False
                assert await source.read_at(BLOCK, 4096) == one[BLOCK : BLOCK + 4096]


class Changing(FolderObjects):
    """Objects of which one is stored anew a few times, each time just after it was asked for."""

    changing = ""
    left = 0

    async def info(self, key: str) -> ObjectInfo:
        found = await super().info(key)
        if key == self.changing and self.left:
            self.left -= 1
            path = self.root / key
            path.write_bytes(path.read_bytes())
        return found


@pytest.mark.parametrize("while_open", [True, False])
async def test_an_image_that_is_merged_into_in_place_is_read_between_two_writes(
    while_open: bool, tmp_path: Path
) -> None:
    writer, one = two_backups(tmp_path / "store", {"directories": False})
    objects = Changing(tmp_path / "store")
    objects.changing = f"{writer.top}/{writer.images['root', T1].path}"
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(replace(lent, objects=objects))
        backup = max(await found(format_), key=lambda one: one.time_ns)
        objects.left = 0 if while_open else 5
        async with format_.open(backup) as tree:
            objects.left = 5 if while_open else objects.left
            (tmp_path / "store" / objects.changing).touch()
            assert await content(tree, DISK) == changed(one, 1, "two")
        assert not objects.left


class Denying:
    """Bytes that are denied when they are gone."""

    def __init__(self, source: Source) -> None:
        self.size, self._source = source.size, source

    async def read_at(self, offset: int, length: int) -> Data:
        try:
            return await self._source.read_at(offset, length)
        except NotFound as error:
            raise Denied("403", key=error.key) from error


class LaggingUnlisted(LaggingObjects):
    """The same where nobody may list, and what is gone is therefore denied."""

    async def renewed(self, key: str) -> ObjectInfo:
        try:
            return await super().renewed(key)
        except NotFound as error:
            raise Denied("403", key=key) from error

    def source(self, info: ObjectInfo) -> Source:
        return Denying(super().source(info))

    async def confirm(self, prefix: str) -> None:
        raise Denied("403")

    async def below(self, prefix: str, after: str = "") -> Sequence[ObjectInfo]:
        return sorted(
            (info for key, info in self.old.items() if key.startswith(prefix)),
            key=lambda info: info.key,
        )


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS[:2], ids=str)
async def test_an_open_disk_stays_readable_while_it_is_merged_where_nobody_may_list(
    variant: dict[str, object], tmp_path: Path
) -> None:
    writer, *expected = repository(tmp_path / "store", variant)
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        assert isinstance(lent.objects, FolderObjects)
        lagging = LaggingUnlisted(tmp_path / "store", await lent.objects.all())
        format_ = XenOrchestraFormat(replace(lent, objects=lagging))
        backups = [one for one in await found(format_) if one.is_complete]
        async with format_.open(backups[0]) as three, format_.open(backups[1]) as four:
            for step in merge(writer, "root", [T1, T2, T3]):
                assert await content(three, DISK) == expected[0], step
                assert await content(four, DISK) == expected[1], step

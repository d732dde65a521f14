"""Merges of Xen Orchestra, interrupted after each of their steps, and while somebody reads."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from contracts.format_contract import found, surroundings
from support.extract import content
from support.objects import FolderObjects
from support.xen_orchestra import BLOCK, KEY, T1, T2, T3, Writer, changed, disk
from support.xen_orchestra_merge import merge

from backgate.fs.disks import chain
from backgate.fs.formats.xen_orchestra.format import XenOrchestraFormat
from backgate.gateway.errors import Damaged, NotFound
from backgate.gateway.provider import ObjectInfo

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
    variant: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "CHECK_EVERY", 0.0)
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
async def test_a_deleted_backup_that_is_open_ends_when_others_are_merged_into_it(
    variant: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "CHECK_EVERY", 0.0)
    store = tmp_path / "store"
    writer = Writer(store, **variant)  # type: ignore[arg-type]
    one = disk(2 * BLOCK, "one")
    writer.back_up(T1, {"root": one})
    writer.back_up(T2, {"root": changed(one, 1, "two")})
    async with surroundings(store, tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        backup = min(await found(format_), key=lambda one: one.time_ns)
        async with format_.open(backup) as tree:
            assert await content(tree, DISK) == one
            (store / writer.top / f"{T1}.json").unlink()
            for step in merge(writer, "root", [T1, T2]):
                with pytest.raises(Damaged, match=r"deleted|missing"):
                    await content(tree, DISK)
                    pytest.fail(step)

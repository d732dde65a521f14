"""Damaged and hostile repositories: errors of ours, of bounded cost, and never wrong bytes."""

import json
import random
import resource
import shutil
from pathlib import Path

import brotli
import pytest
from contracts.format_contract import found, surroundings
from support.extract import content, entries, find, read_all
from support.logs import words_only
from support.xen_orchestra import (
    BLOCK,
    KEY,
    T1,
    T2,
    T3,
    Writer,
    changed,
    disk,
    footer,
    header,
    unpack_sample,
)

from backgate.fs import backup_disks
from backgate.fs.formats.xen_orchestra import tables
from backgate.fs.formats.xen_orchestra.format import XenOrchestraFormat
from backgate.fs.opened import open_backups
from backgate.gateway.errors import BackgateError, Damaged, StoreError
from backgate.gateway.units import GIB, MIB

ONE = disk(2 * BLOCK + 700, "one")
TWO = changed(ONE, 1, "two")
THREE = changed(TWO, 0, "three")
DISK = b"disks/xvda-root"
EXPECTED = {T1: ONE, T2: TWO, T3: THREE}
BAR = 96 * MIB  # bytes that a hostile repository may make the process larger by


def repository(store: Path, **variant: object) -> Writer:
    """Write three backups of one disk."""
    writer = Writer(store, **variant)  # type: ignore[arg-type]
    for time, data in EXPECTED.items():
        writer.back_up(time, {"root": data})
    return writer


async def read(store: Path, cache: Path) -> dict[str, bytes | None]:
    """Return the disk of each backup by its time; None where that is an error of ours."""
    shown: dict[str, bytes | None] = {}
    async with surroundings(store, cache, KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        for backup in await found(format_):
            name = backup.key.rpartition("/")[2].partition(".")[0]
            shown[name] = None
            if backup.is_complete:
                try:
                    async with format_.open(backup) as tree:
                        (one,) = (await tree.children(await find(tree, b"disks"))).entries
                        shown[name] = await content(tree, b"disks/" + one.name + b"/disk.raw")
                except BackgateError:
                    pass
            else:
                assert backup.reason
    return shown


def mutated(store: Path, seed: int, *, only: str) -> str:
    """Flip some bits of one object whose path ends in `only`, or cut it off; returns which."""
    random_ = random.Random(seed)
    paths = sorted(path for path in store.rglob("*") if path.is_file() and only in str(path))
    path = random_.choice(paths)
    data = bytearray(path.read_bytes())
    if random_.random() < 0.3 or not data:
        data = data[: random_.randrange(len(data) + 1)]
    else:
        for _ in range(random_.choice((1, 1, 2, 8))):
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)
    return str(path.relative_to(store))


async def try_mutations(tmp_path: Path, seeds: range, variant: dict[str, object], only: str) -> int:
    """Check for each seed that what is read is right; returns how many disks could be read."""
    repository(tmp_path / "whole", **variant)
    could = 0
    for seed in seeds:
        store = tmp_path / "store"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", store)
        what = mutated(store, seed, only=only)

        with words_only():
            shown = await read(store, tmp_path / "cache")

        for time, data in shown.items():
            assert data is None or data == EXPECTED[time], (seed, what, time)
            could += data is not None
    return could


@pytest.mark.slow
async def test_whatever_is_changed_in_an_encrypted_repository_no_byte_is_wrong(
    tmp_path: Path,
) -> None:
    variant = {"filter": "brotli", "algorithm": "chacha20-poly1305"}

    assert await try_mutations(tmp_path, range(40), variant, only="")


@pytest.mark.slow
async def test_whatever_is_changed_in_compressed_images_no_byte_is_wrong(tmp_path: Path) -> None:
    assert await try_mutations(tmp_path, range(40), {"filter": "gzip"}, only="/data/")


@pytest.mark.slow
async def test_whatever_is_changed_in_a_repository_only_errors_of_ours_come(tmp_path: Path) -> None:
    for number, variant in enumerate(({"directories": False}, {"filter": "brotli"})):
        repository(tmp_path / f"whole{number}", **variant)
        for seed in range(25):
            store = tmp_path / "store"
            shutil.rmtree(store, ignore_errors=True)
            shutil.copytree(tmp_path / f"whole{number}", store)
            mutated(store, seed, only="xo-vm-backups")

            await read(store, tmp_path / "cache")


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_two_thousand_mutations(tmp_path: Path) -> None:
    sealed = {"filter": None, "algorithm": "aes-256-gcm"}

    assert await try_mutations(tmp_path / "sealed", range(1000, 2000), sealed, only="")
    assert await try_mutations(
        tmp_path / "gzip", range(2000, 3000), {"filter": "gzip"}, only="/data/"
    )


async def failure(store: Path, cache: Path) -> str:
    """Return why the disk of the newest backup cannot be read."""
    async with surroundings(store, cache, KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        backup = max(await found(format_), key=lambda one: one.time_ns)
        if not backup.is_complete:
            return backup.reason
        async with format_.open(backup) as tree:
            names = [one.name for one in (await tree.children(await find(tree, DISK))).entries]
            if b"README.txt" in names:
                assert b"disk.raw" not in names
                return (await content(tree, DISK + b"/README.txt")).decode()
            with pytest.raises(Damaged) as caught:
                await content(tree, DISK + b"/disk.raw")
            return str(caught.value)


async def test_a_chain_that_leads_back_to_itself_is_an_error(tmp_path: Path) -> None:
    writer = repository(tmp_path / "store", filter=None)
    oldest, newest = writer.images["root", T1], writer.images["root", T3]
    where = f"{writer.top}/{oldest.data}"
    writer.chunk(f"{where}/footer", footer(len(ONE), oldest.identity, kind=4))
    name = Path(newest.path).name
    writer.chunk(f"{where}/header", header(2, parent=newest.identity, name=name))

    assert "loop" in await failure(tmp_path / "store", tmp_path / "cache")


async def test_a_parent_that_is_another_disk_is_an_error(tmp_path: Path) -> None:
    writer = repository(tmp_path / "store", filter=None)
    image = writer.images["root", T2]
    writer.chunk(f"{writer.top}/{image.data}/footer", footer(len(TWO), b"x" * 16, kind=4))

    assert "was not made on top of" in await failure(tmp_path / "store", tmp_path / "cache")


@pytest.mark.parametrize(
    "alias", ["../../../../../../secret.vhd", "/etc", "", "x.alias.vhd", "data/\0", "a" * 5000]
)
async def test_an_alias_that_leads_nowhere_is_an_error(alias: str, tmp_path: Path) -> None:
    writer = repository(tmp_path / "store", filter=None)
    writer.put(f"{writer.top}/{writer.images['root', T3].path}", alias.encode())

    assert "alias" in await failure(tmp_path / "store", tmp_path / "cache")


@pytest.mark.parametrize("path", ["../../other/x.vhd", "/x.vhd", "vdis/../../x", ""])
async def test_a_disk_outside_of_the_vm_s_directory_is_an_error(path: str, tmp_path: Path) -> None:
    writer = repository(tmp_path / "store", filter=None)
    writer.write_metadata(T3, ["root"], vhds={"OpaqueRef:root": path})

    assert "the repository" in await failure(tmp_path / "store", tmp_path / "cache")


@pytest.mark.slow
async def test_bombs_cost_no_memory(tmp_path: Path) -> None:
    bomb = brotli.compress(bytes(512 * MIB), quality=1)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for part in ("footer", "header", "bat", "blocks/0/0"):
        writer = repository(tmp_path / part, filter="brotli")
        for time in EXPECTED:
            writer.put(f"{writer.top}/{writer.images['root', time].data}/{part}", bomb)

        assert "bytes" in await failure(tmp_path / part, tmp_path / "cache")

    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun) * 1024
    assert grown < BAR


async def test_documents_of_any_size_are_refused_unread(tmp_path: Path) -> None:
    writer = repository(tmp_path / "store", filter=None)
    with (tmp_path / "store" / writer.top / f"{T3}.json").open("r+b") as file:
        file.truncate(GIB)

    assert "too many" in await failure(tmp_path / "store", tmp_path / "cache")


@pytest.mark.parametrize("size", [1 << 60, (1 << 64) - 1, 1 << 48])
async def test_a_disk_of_absurd_size_is_an_error(size: int, tmp_path: Path) -> None:
    writer = repository(tmp_path / "store", filter=None)
    image = writer.images["root", T3]
    writer.chunk(f"{writer.top}/{image.data}/footer", footer(size, image.identity, kind=4))

    assert await failure(tmp_path / "store", tmp_path / "cache")


async def test_metadata_that_is_deep_or_of_other_types_is_an_error(tmp_path: Path) -> None:
    writer = repository(tmp_path / "store", filter=None)
    for document in (b"[" * 100_000, b"[]", b'{"mode":"delta","vhds":[]}', b'{"mode":"odd"}', b""):
        (tmp_path / "store" / writer.top / f"{T3}.json").write_bytes(document)

        assert await failure(tmp_path / "store", tmp_path / "cache")


async def test_one_broken_disk_does_not_keep_another_from_being_read(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store", filter=None)
    writer.back_up(T1, {"root": ONE, "data": TWO})
    path = tmp_path / "store" / writer.top / writer.images["root", T1].data / "footer"
    path.write_bytes(json.dumps("no footer").encode())

    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        (backup,) = await found(format_)
        async with format_.open(backup) as tree:
            assert await content(tree, b"disks/xvdb-data/disk.raw") == TWO
            assert b"no VHD footer" in await content(tree, DISK + b"/README.txt")


@pytest.mark.slow
async def test_the_files_of_a_disk_are_shown_beside_one_that_is_damaged(tmp_path: Path) -> None:
    store = unpack_sample("encrypted", tmp_path / "store")
    for damaged in store.glob("xo-vm-backups/*/vdis/*/aaaaaaaa*/data/*/blocks/0/0"):
        damaged.write_bytes(damaged.read_bytes()[:-1])

    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        backup = max(await found(format_), key=lambda one: one.time_ns)
        async with format_.open(backup) as tree:
            place = b"disks/xvdb-lab-vm disk b/partitions/0-ext4/data/readme.md"
            assert len(await content(tree, place)) == 5000
            broken = await find(tree, b"disks/xvda-lab-vm disk a/partitions")
            (unknown,) = (await tree.children(broken)).entries
            reason = b"disks/xvda-lab-vm disk a/partitions/" + unknown.name + b"/README.txt"
            assert b"not authentic" in await content(tree, reason)


async def test_images_whose_tables_would_fill_the_memory_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "store")
    monkeypatch.setattr(tables, "TABLES_MAX", 2)

    shown = await read(tmp_path / "store", tmp_path / "cache")

    assert shown == {T1: ONE, T2: TWO, T3: None}


async def test_tables_of_all_backups_that_are_open_have_one_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "store")
    monkeypatch.setattr(tables, "ALL_MAX", 4)
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        one, two, three = sorted(await found(format_), key=lambda one: one.time_ns)
        async with format_.open(three) as tree:  # of three images, a byte each
            assert await content(tree, DISK + b"/disk.raw") == THREE
            with pytest.raises(StoreError, match="no room"):
                async with format_.open(two):
                    pass
            async with format_.open(one) as other:
                assert await content(other, DISK + b"/disk.raw") == ONE
        async with format_.open(two) as tree:
            assert await content(tree, DISK + b"/disk.raw") == TWO


async def test_a_disk_that_could_not_be_opened_is_there_as_soon_as_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backup_disks, "LOOK_AGAIN", 0.0)
    writer = Writer(tmp_path / "store")
    writer.back_up(T1, {"root": ONE, "data": TWO})
    where = tmp_path / "store" / writer.top / writer.images["root", T1].data
    where.rename(tmp_path / "away")
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        (backup,) = await found(format_)
        async with open_backups() as opened:
            tree = opened.tree(format_, backup)
            file = await find(tree, b"disks/xvdb-data/disk.raw")
            async with tree.open(file) as source:  # of the disk that was whole all the time
                missing = [one.name async for one in entries(tree, await find(tree, DISK))]
                may_be_kept = tree.is_immutable
                (tmp_path / "away").rename(where)
                there = [one.name async for one in entries(tree, await find(tree, DISK))]

                assert (missing[0], there[0]) == (b"README.txt", b"disk.raw")
                assert (may_be_kept, tree.is_immutable) == (False, True)
                assert await content(tree, DISK + b"/disk.raw") == ONE
                assert await read_all(source) == TWO
    assert [one.levelname for one in caplog.records] == ["WARNING"]

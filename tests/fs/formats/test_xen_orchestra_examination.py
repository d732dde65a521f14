"""Which backups are not whole is found from footers and headers, each read once."""

import json
import shutil
from pathlib import Path

import pytest
from contracts.format_contract import found, surroundings
from support.objects import FolderObjects
from support.xen_orchestra import BLOCK, KEY, T1, T2, T3, Image, Writer, changed, disk
from support.xen_orchestra_merge import merge

from backgate.fs.format import Backup
from backgate.fs.formats.xen_orchestra.format import XenOrchestraFormat

ONE = disk(2 * BLOCK, "one")
CONTENTS = {T1: ONE, T2: changed(ONE, 1, "two"), T3: changed(ONE, 0, "three")}
VARIANTS = [{"directories": False}, {"filter": "brotli"}, {"alias": False, "filter": None}]


def repository(store: Path, variant: dict[str, object]) -> Writer:
    """Write three backups of two disks, each on top of the one before."""
    writer = Writer(store, **variant)  # type: ignore[arg-type]
    for time, content in CONTENTS.items():
        writer.back_up(time, {"root": content, "data": content[:BLOCK]})
    return writer


async def examined(store: Path, cache: Path) -> tuple[list[Backup], list[str]]:
    """Return the backups after a closer look, and the keys that were read for it."""
    async with surroundings(store, cache, KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        backups = await found(format_)
        assert isinstance(lent.objects, FolderObjects)
        begun = len(lent.objects.reads)
        looked_at = await format_.examined(backups)
        assert [one.key for one in looked_at] == [one.key for one in backups]
        return looked_at, [key for key, _, _ in lent.objects.reads[begun:]]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_whole_backups_are_complete_and_asked_for_once(
    variant: dict[str, object], tmp_path: Path
) -> None:
    repository(tmp_path / "store", variant)

    first, read = await examined(tmp_path / "store", tmp_path / "cache")
    second, again = await examined(tmp_path / "store", tmp_path / "cache")

    assert [one.reason for one in first] == [one.reason for one in second] == ["", "", ""]
    assert len(read) == len(set(read))
    assert not any("/blocks/" in key or key.endswith("/bat") for key in read)
    assert not again


async def test_how_far_the_look_has_come_is_told_disk_by_disk(tmp_path: Path) -> None:
    repository(tmp_path / "store", {})
    told: list[tuple[int, int]] = []

    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        await format_.examined(await found(format_), lambda done, due: told.append((done, due)))

    assert told == [(0, 6), *[(1, 0)] * 6]


async def test_what_was_kept_of_images_is_read_again_when_it_is_damaged(tmp_path: Path) -> None:
    repository(tmp_path / "store", {"filter": None})
    await examined(tmp_path / "store", tmp_path / "cache")
    (facts,) = (tmp_path / "cache").glob("images-*/*")
    facts.write_bytes(facts.read_bytes()[:-1])

    backups, read = await examined(tmp_path / "store", tmp_path / "cache")

    assert all(one.is_complete for one in backups)
    assert read


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_a_backup_whose_parent_is_gone_says_which(
    variant: dict[str, object], tmp_path: Path
) -> None:
    writer = repository(tmp_path / "store", variant)
    await examined(tmp_path / "store", tmp_path / "cache")
    path = tmp_path / "store" / writer.top / writer.images["root", T2].path
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    (one, two, three), _ = await examined(tmp_path / "store", tmp_path / "cache")

    assert one.is_complete
    for backup in (two, three):
        assert not backup.is_complete
        assert "'xvda-root'" in backup.reason
        assert T2 in backup.reason
        assert "missing" in backup.reason


def cut(store: Path, writer: Writer, image: Image) -> None:
    """Delete the data of an image, but not its name."""
    shutil.rmtree(store / writer.top / image.data)


def spoil(store: Path, writer: Writer, image: Image) -> None:
    """Damage the footer of an image."""
    (store / writer.top / image.data / "footer").write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, spoil])
async def test_a_backup_whose_disk_is_damaged_says_where(harm: object, tmp_path: Path) -> None:
    writer = repository(tmp_path / "store", {"filter": None})
    assert callable(harm)
    harm(tmp_path / "store", writer, writer.images["data", T3])

    (one, two, three), _ = await examined(tmp_path / "store", tmp_path / "cache")

    assert one.is_complete
    assert two.is_complete
    assert not three.is_complete
    assert "'xvdb-data'" in three.reason
    assert writer.images["data", T3].data in three.reason


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS[:2], ids=str)
async def test_a_backup_in_an_interrupted_merge_is_complete_with_a_warning(
    variant: dict[str, object], tmp_path: Path
) -> None:
    writer = repository(tmp_path / "store", variant)
    for time in (T1, T2):
        (tmp_path / "store" / writer.top / f"{time}.json").unlink()

    for step in merge(writer, "root", [T1, T2, T3]):
        backups, _ = await examined(tmp_path / "store", tmp_path / "cache")
        (backup,) = [one for one in backups if one.key.endswith(f"{T3}.json")]

        assert backup.is_complete, (step, backup.reason)
        assert ("a merge" in backup.notes.get("warning", "")) == (step != "ended"), step


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_an_archive_that_is_cut_off_is_told_without_reading_it(
    is_encrypted: bool, tmp_path: Path
) -> None:
    algorithm = "chacha20-poly1305" if is_encrypted else None
    writer = Writer(tmp_path / "store", algorithm=algorithm)
    for time in (T1, T2):
        document = {"mode": "full", "xva": f"./{time}.xva", "size": 5000}
        writer.put(f"{writer.top}/{time}.json", json.dumps(document).encode())
    writer.put(f"{writer.top}/{T1}.xva", bytes(5000))
    writer.put(f"{writer.top}/{T2}.xva", bytes(4999))

    (one, two), read = await examined(tmp_path / "store", tmp_path / "cache")

    assert one.is_complete
    assert "is cut off" in two.reason
    assert not read

"""The tree of disks: what is found where, also by whoever comes back to it later."""

import logging
import os
from pathlib import Path

import pytest
from support.disk_trees import tree_of
from support.extract import content, entries, find
from support.file_systems import unpacked
from support.trees import run

from backgate.fs import disk_tree
from backgate.fs.disk_tree import DiskTree
from backgate.gateway.errors import Damaged, FileError

SIZE_OF_INODE = 1024 + 88  # where ext4 has it, of two bytes
FEATURES_THAT_PROVE = 1024 + 0x65  # where ext4 says that metadata has checksums

pytestmark = pytest.mark.slow


def ext4(directory: Path, *commands: str) -> bytes:
    """Return a disk with a few files, changed by debugfs(8)."""
    source = directory / "from"
    (source / "a/b").mkdir(parents=True, exist_ok=True)
    (source / "a/file").write_text("found")
    image = directory / "image"
    run("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", "-d", source, image, "4M")
    for command in commands:
        run("debugfs", "-w", "-R", command, image)
    return image.read_bytes()


async def names(tree: DiskTree, path: bytes) -> list[bytes]:
    directory = await find(tree, path) if path else await tree.root()
    return [entry.name async for entry in entries(tree, directory)]


async def test_each_disk_has_its_place(tmp_path: Path) -> None:
    async with tree_of(ext4(tmp_path), bytes(1 << 20)) as tree:
        assert await names(tree, b"") == [b"disks", b"volumes"]
        assert await names(tree, b"disks") == [b"xvda", b"xvdb"]
        assert await names(tree, b"disks/xvda") == [b"disk.raw", b"partitions"]
        assert await names(tree, b"disks/xvda/partitions") == [b"0-ext4"]
        assert await names(tree, b"disks/xvda/partitions/0-ext4/a") == [b"b", b"file"]
        assert await content(tree, b"disks/xvda/partitions/0-ext4/a/file") == b"found"
        assert await names(tree, b"disks/xvdb/partitions/0-unknown") == [
            b"volume.raw",
            b"README.txt",
        ]
        assert await names(tree, b"volumes") == []
        for path in (b"disks/xvdc", b"disks/xvda/partitions/1-x", b"volumes/x", b"x"):
            with pytest.raises(FileError):
                await find(tree, path)


async def test_a_file_system_that_nobody_could_look_at_is_not_taken_for_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tree_of(ext4(tmp_path)) as tree:
        directory = await find(tree, b"disks/xvda/partitions")
        (entry,) = [entry async for entry in entries(tree, directory)]
        tree._parser._end_worker()
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", "/nonexistent")
            with pytest.raises(Damaged, match="cannot be started"):
                await tree.children(entry)

        assert b"a" in [entry.name async for entry in entries(tree, entry)]


async def test_a_file_system_that_could_not_be_opened_is_looked_at_anew_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(disk_tree, "TRY_AGAIN", 0.0)
    data = bytearray(ext4(tmp_path))
    whole = bytes(data)
    data[SIZE_OF_INODE : SIZE_OF_INODE + 2] = b"\xff\xff"
    async with tree_of(data) as tree:
        place = b"disks/xvda/partitions/0-ext4"
        assert await names(tree, place) == [b"volume.raw", b"README.txt"]
        readme = await find(tree, place + b"/README.txt")
        data[:] = whole
        tree._parser._give_way()

        assert b"a" in await names(tree, place)
        with pytest.raises(FileError, match="Stale"):
            async with tree.open(readme):
                pass
    assert "shown as volume.raw only" in caplog.text


async def test_a_tree_that_was_made_of_other_volumes_wants_to_be_opened_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    data = bytearray(ext4(tmp_path))
    whole = bytes(data)
    data[: 64 << 10] = bytes(64 << 10)
    async with tree_of(data) as tree:
        assert await names(tree, b"disks/xvda/partitions") == [b"0-unknown"]
        data[:] = whole
        tree._parser._give_way()
        before = await tree.is_outdated()

        with pytest.raises(Damaged, match="other volumes than before"):
            await content(tree, b"disks/xvda/partitions/0-unknown/volume.raw")

        assert (before, await tree.is_outdated()) == (False, True)


async def test_what_is_shown_while_a_file_system_cannot_be_opened_is_not_kept_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    data = bytearray(ext4(tmp_path))
    data[SIZE_OF_INODE : SIZE_OF_INODE + 2] = b"\xff\xff"
    async with tree_of(data) as tree:
        assert tree.is_immutable

        assert b"README.txt" in await names(tree, b"disks/xvda/partitions/0-ext4")

        assert not tree.is_immutable


async def test_a_readme_says_the_same_to_whoever_comes_back_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    data = bytearray(ext4(tmp_path))
    data[SIZE_OF_INODE : SIZE_OF_INODE + 2] = b"\xff\xff"
    async with tree_of(data) as tree:
        readme = await find(tree, b"disks/xvda/partitions/0-ext4/README.txt")

    async with tree_of(data) as tree, tree.open(readme) as source:
        said = bytes(await source.read_at(0, 1 << 16))
    assert b"cannot be opened: " in said
    assert len(said) == readme.size


async def test_entries_outlive_the_tree_that_told_of_them(tmp_path: Path) -> None:
    image = ext4(tmp_path)
    async with tree_of(image) as tree:
        directory = await find(tree, b"disks/xvda/partitions/0-ext4/a")
        file = await tree.child(directory, b"file")

    async with tree_of(image) as tree:
        assert await tree.child(directory, b"file") == file
        async with tree.open(file) as source:
            assert await source.read_at(0, 10) == b"found"


async def test_a_directory_that_contains_itself_is_damage_there_and_nowhere_else(
    tmp_path: Path,
) -> None:
    image = ext4(tmp_path, "link a a/b/again")
    async with tree_of(image) as tree:
        assert await names(tree, b"disks/xvda/partitions/0-ext4/a/b") == [b"again"]
        below = await find(tree, b"disks/xvda/partitions/0-ext4/a/b")
        (entry,) = [one async for one in entries(tree, below)]
        assert not entry.is_settled
        with pytest.raises(Damaged, match="contains itself"):
            await tree.child(below, b"again")
        assert await content(tree, b"disks/xvda/partitions/0-ext4/a/file") == b"found"


async def test_a_name_with_a_slash_is_damage_of_its_directory(tmp_path: Path) -> None:
    image = ext4(tmp_path).replace(b"\4\1file", b"\4\1../x")
    async with tree_of(image) as tree:
        with pytest.raises(Damaged, match="no file can have"):
            await names(tree, b"disks/xvda/partitions/0-ext4/a")
        assert await names(tree, b"disks/xvda/partitions/0-ext4") == [b"lost+found", b"a"]


async def test_an_empty_disk_and_an_absurdly_large_one_are_shown() -> None:
    async with tree_of(b"", os.urandom(512)) as tree:
        assert await names(tree, b"disks/xvda/partitions") in ([], [b"0-unknown"])
        assert await names(tree, b"disks/xvdb/partitions") == [b"0-unknown"]


async def test_a_doubt_of_what_is_shown_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(unpacked("ext4-crashed-fast-commits", tmp_path).read_bytes())
    data[FEATURES_THAT_PROVE] ^= 0x04  # no checksums: fast commits are left out

    async with tree_of(data) as tree:
        assert await names(tree, b"disks/xvda/partitions/0-ext4")

    (said,) = [one for one in caplog.records if "but not" in one.message]
    assert said.levelno == logging.WARNING
    assert said.message.endswith("what was written last may be missing")


async def test_a_file_system_whose_log_can_no_longer_be_replayed_is_not_shown_as_it_was_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    data = bytearray(unpacked("ext4-crashed", tmp_path).read_bytes())
    journal = data.index(b"\xc0\x3b\x39\x98\0\0\0\4")
    place = b"disks/xvda/partitions/0-ext4"
    async with tree_of(data) as tree:
        before = await names(tree, place)
        data[journal] ^= 1
        tree._parser._give_way()

        with pytest.raises(Damaged, match="in another state than before"):
            await names(tree, place)

        data[journal] ^= 1
        tree._parser._give_way()
        assert await names(tree, place) == before


async def test_errors_that_a_file_system_tells_of_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with tree_of(ext4(tmp_path, "ssv state 2")) as tree:
        assert await names(tree, b"disks/xvda/partitions/0-ext4")
        (volume,) = (await tree.report()).volumes

    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert volume.notes["damage"] in caplog.text


async def test_what_became_of_a_journal_is_in_the_log_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with tree_of(unpacked("ext4-crashed", tmp_path).read_bytes()) as tree:
        for _ in range(2):
            assert await names(tree, b"disks/xvda/partitions/0-ext4")
        (volume,) = (await tree.report()).volumes

    said = [one.message for one in caplog.records if "journal: replayed: " in one.message]
    assert len(said) == 1
    assert said[0].startswith("a backup: disks/xvda/partitions/0-ext4: ext4, in use when it was")
    assert volume.notes["journal"] in said[0]


async def test_a_report_tells_of_disks_volumes_and_what_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = bytearray(ext4(tmp_path))
    damaged[SIZE_OF_INODE : SIZE_OF_INODE + 2] = b"\xff\xff"
    caplog.set_level(logging.ERROR)
    async with tree_of(ext4(tmp_path), bytes(damaged)) as tree:
        report = await tree.report()

    assert [(disk.name, disk.size) for disk in report.disks] == [
        ("xvda", 4 << 20),
        ("xvdb", 4 << 20),
    ]
    whole, broken = report.volumes
    assert (whole.path, whole.problem) == ("disks/xvda/partitions/0-ext4", "")
    assert whole.notes["state"] == "clean"
    assert "inode size" in broken.problem

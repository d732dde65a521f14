"""A damaged repository harms what was damaged, says what it is, and nothing else."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from contracts.format_contract import surroundings
from support.extract import content, entries, find
from support.objects import FolderObjects
from support.restic import PASSWORD, Forge, flip, write_named
from support.restic_format import found, only_tree, opened

from backgate.fs.formats.restic.format import ResticFormat
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo

FIRST, SECOND = os.urandom(5000), os.urandom(6000)


def forge_two_files(path: Path) -> tuple[Forge, Path, Path]:
    """A snapshot of `one` and `two`; returns also the packs in which they lie."""
    forge = Forge(path)
    one, two = forge.file("one", FIRST), forge.file("two", SECOND)
    packs = [next((path / "data").rglob(str(pack["id"]))) for pack in forge.index]
    forge.snapshot(forge.tree(one, two))
    return forge, packs[0], packs[1]


async def test_a_flipped_byte_in_a_pack_is_named_with_object_and_offset(tmp_path: Path) -> None:
    _, pack, _ = forge_two_files(tmp_path / "web")
    flip(pack, 100)

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged, match="MAC") as caught:
            await content(tree, b"one")
        assert await content(tree, b"two") == SECOND

    assert caught.value.where.endswith(pack.name)
    assert caught.value.offset == 0


async def test_a_deleted_pack_is_named_and_harms_only_the_files_in_it(tmp_path: Path) -> None:
    _, pack, _ = forge_two_files(tmp_path / "web")
    pack.unlink()

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged, match="gone") as caught:
            await content(tree, b"one")
        assert await content(tree, b"two") == SECOND

    assert caught.value.where == f"web/data/{pack.name[:2]}/{pack.name}"


async def test_a_truncated_pack_is_damage(tmp_path: Path) -> None:
    _, pack, _ = forge_two_files(tmp_path / "web")
    pack.write_bytes(pack.read_bytes()[:-1])

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged, match="ends before"):
            await content(tree, b"one")


async def test_a_blob_that_is_not_what_its_id_says_is_damage(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    node = forge.file("one", FIRST)
    forge.index[0]["blobs"][0]["id"] = "ab" * 32  # type: ignore[index]
    forge.snapshot(forge.tree(node | {"content": ["ab" * 32]}))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged, match="sha256"):
            await content(tree, b"one")


@pytest.mark.parametrize("length", [4999, 5001, 1 << 30])
async def test_a_wrong_length_in_the_index_is_damage(tmp_path: Path, length: int) -> None:
    forge = Forge(tmp_path / "web")
    node = forge.file("one", FIRST)
    forge.index[0]["blobs"][0]["uncompressed_length"] = length  # type: ignore[index]
    forge.snapshot(forge.tree(node))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged):
            await content(tree, b"one")


async def test_another_copy_of_a_blob_serves_for_a_damaged_one(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    node = forge.file("one", FIRST)
    forge.pack(b"before", FIRST)
    packs = [next((tmp_path / "web").rglob(str(pack["id"]))) for pack in forge.index]
    forge.snapshot(forge.tree(node))

    for spoiled, whole in (packs, reversed(packs)):
        data = whole.read_bytes()
        before = spoiled.read_bytes()
        flip(spoiled, len(before) - 20)
        async with only_tree(tmp_path, tmp_path / f"cache-{spoiled.name}") as (tree, _):
            assert await content(tree, b"one") == FIRST
        spoiled.write_bytes(before)
        assert whole.read_bytes() == data


async def test_a_damaged_snapshot_is_listed_with_the_reason_and_stops_no_other(
    tmp_path: Path,
) -> None:
    forge, *_ = forge_two_files(tmp_path / "web")
    flip(forge.snapshot(forge.tree(), hostname="other"), 40)
    write_named(tmp_path / "web" / "snapshots", b"not sealed at all" * 10)
    write_named(tmp_path / "web" / "snapshots", forge.seal(b'{"time": "yesterday"}'))

    async with opened(tmp_path, tmp_path / "cache") as (format_, backups):
        whole = [backup for backup in backups if backup.is_complete]
        broken = [backup for backup in backups if not backup.is_complete]
        assert len(whole) == 1 and len(broken) == 3
        assert all(backup.key in backup.reason for backup in broken)
        async with format_.open(whole[0]) as tree:
            assert await content(tree, b"one") == FIRST


async def test_a_damaged_index_file_leaves_the_others_of_use(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    node = forge.file("one", FIRST)
    flip(forge.write_index(), 50)
    forge.snapshot(forge.tree(node, forge.file("two", SECOND)))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        assert await content(tree, b"two") == SECOND
        with pytest.raises(Damaged, match="1 index files are damaged"):
            await content(tree, b"one")


async def test_a_blob_in_a_newer_index_file_is_found_by_reading_the_index_anew(
    tmp_path: Path,
) -> None:
    forge = Forge(tmp_path / "web")
    node = forge.file("one", FIRST)
    late, forge.index = forge.index, []
    forge.snapshot(forge.tree(node))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        forge.index = late
        forge.write_index()

        assert await content(tree, b"one") == FIRST


class Listed(FolderObjects):
    """Objects that are listed only when that is asked for, as where others write to the store."""

    listing: Sequence[ObjectInfo] = ()

    async def below(self, prefix: str, after: str = "") -> Sequence[ObjectInfo]:
        return [info for info in self.listing if info.key > after]

    async def confirm(self, prefix: str) -> None:
        self.listing = await super().below(prefix)


async def test_an_index_file_that_somebody_else_just_wrote_is_found(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    node = forge.file("one", FIRST)
    late, forge.index = forge.index, []
    forge.snapshot(forge.tree(node))

    async with surroundings(tmp_path, tmp_path / "cache", PASSWORD.encode()) as lent:
        format_ = ResticFormat(replace(lent, objects=Listed(tmp_path)))
        (backup,) = await found(format_)
        async with format_.open(backup) as tree:
            forge.index = late
            forge.write_index()

            assert await content(tree, b"one") == FIRST


async def test_a_repository_made_anew_under_its_old_name_is_read(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(forge.file("one", FIRST)))

    async with opened(tmp_path, tmp_path / "cache") as (format_, (backup,)):
        async with format_.open(backup) as tree:
            assert await content(tree, b"one") == FIRST
        shutil.rmtree(tmp_path / "web")
        forge = Forge(tmp_path / "web")
        forge.snapshot(forge.tree(forge.file("two", SECOND)))
        (backup,) = await found(format_)
        async with format_.open(backup) as tree:
            assert await content(tree, b"two") == SECOND


async def test_a_table_that_the_disk_does_not_give_blocks_nobody_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(forge.file("one", FIRST)))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with monkeypatch.context() as patch, pytest.raises(Damaged, match="Input/output"):
            patch.setattr("backgate.fs.formats.restic.segment.Segment.records", _unreadable)
            await content(tree, b"one")

        with trio.fail_after(120):
            assert await content(tree, b"one") == FIRST


def _unreadable(*_: object) -> bytes:
    raise Damaged("table", 0, "cannot be read: Input/output error")


async def test_a_missing_blob_lists_the_index_once_not_for_every_file(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    nodes = [forge.file(f"{number}", b"%d" % number) for number in range(20)]
    forge.index.clear()
    forge.snapshot(forge.tree(*nodes))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, objects):
        listings = []
        below = objects.below

        async def counted(prefix: str, after: str = "") -> object:
            listings.append(prefix)
            return await below(prefix, after)

        objects.below = counted  # type: ignore[method-assign, assignment]
        for number in range(20):
            with pytest.raises(Damaged, match="no index file knows"):
                await content(tree, b"%d" % number)

    assert len(listings) == 2  # a page, and the empty one behind it


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "a\\x00b", "/", "x" * 1025, "\\q", "\\ud800"]
)
async def test_a_dangerous_name_is_refused_with_its_directory(tmp_path: Path, name: str) -> None:
    forge = Forge(tmp_path / "web")
    bad = forge.tree(forge.file("fine", b"x"), forge.file(name, b"y"))
    folder = {"name": "bad", "type": "dir", "mode": 1 << 31 | 0o755, "subtree": bad}
    forge.snapshot(forge.tree(folder, forge.file("good", FIRST)))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged):
            await tree.children(await find(tree, b"bad"))
        assert await content(tree, b"good") == FIRST


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": 1 << 70},
        {"mode": 1 << 40},
        {"uid": -5},
        {"mtime": "2026-13-01T00:00:00Z"},
        {"mtime": "never"},
        {"name": "fine"},
        {"type": "dir", "subtree": "zz" * 32},
        {"type": "symlink", "linktarget": ""},
        {"type": "symlink", "linktarget": "x" * 5000},
        {"type": "symlink", "linktarget": "a\0b"},
        {"extended_attributes": 5, "size": "x"},
    ],
    ids=str,
)
async def test_a_node_of_nonsense_is_damage(tmp_path: Path, change: dict[str, object]) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(forge.file("fine", b"x"), forge.file("odd", b"y") | change))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged):
            await tree.children(await tree.root())


@pytest.mark.parametrize("ids", [["zz" * 32], ["ab"], [5], "text", {}], ids=str)
async def test_a_content_of_nonsense_is_damage(tmp_path: Path, ids: object) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(forge.file("odd", b"y", content=ids)))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged):
            await content(tree, b"odd")


@pytest.mark.parametrize("plain", [b"", b"[]", b'{"nodes":5}', b"{" * 100_000, b'{"nodes":[{}]}'])
async def test_a_tree_of_nonsense_is_damage(tmp_path: Path, plain: bytes) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.pack(plain, kind="tree")[0])

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        with pytest.raises(Damaged):
            await tree.children(await tree.root())


async def test_a_directory_that_was_unreadable_is_an_error_not_empty(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    folder = {"name": "closed", "type": "dir", "mode": 1 << 31, "subtree": None, "error": "denied"}
    forge.snapshot(forge.tree(folder))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        closed = await find(tree, b"closed")
        with pytest.raises(Exception, match="denied"):
            await tree.children(closed)


async def test_very_old_trees_stand_for_others_but_not_for_themselves(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    inner = forge.tree(forge.file("note", FIRST))
    forge.snapshot(forge.tree({"name": ".", "type": "dir", "mode": 1 << 31, "subtree": inner}))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        assert await content(tree, b"note") == FIRST


async def test_fields_and_nulls_of_other_versions_are_skipped(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    node = forge.file("note", FIRST) | {
        "content_hash": {"x": [1, 2]},
        "generic_attributes": {"windows.file_attributes": 32},
        "extended_attributes": None,
        "links": 0,
    }
    empty = {"name": "void", "type": "file", "content": None, "mtime": "0000-01-01T00:00:00Z"}
    forge.snapshot(forge.tree(node, empty, {"name": "zzz", "type": "irregular"}))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        shown = [entry async for entry in entries(tree, await tree.root())]

        assert [entry.nlink for entry in shown] == [1, 1, 1]
        assert not any(entry.has_xattrs for entry in shown)
        assert await content(tree, b"void") == b""


async def test_sizes_are_what_the_blobs_have_not_what_the_node_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(forge.file("note", FIRST, SECOND, size=7)))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        assert await content(tree, b"note") == FIRST + SECOND
    assert "listed with 7" in caplog.text


async def test_names_out_of_order_are_sorted(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(*[forge.file(name, name.encode()) for name in "zebra"]))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        shown = [entry.name async for entry in entries(tree, await tree.root())]
        assert shown == [b"a", b"b", b"e", b"r", b"z"]
        assert await content(tree, b"z") == b"z"


async def test_a_vanished_repository_takes_nothing_else_along(tmp_path: Path) -> None:
    forge_two_files(tmp_path / "one")
    forge_two_files(tmp_path / "two")

    async with opened(tmp_path, tmp_path / "cache") as (format_, backups):
        for path in (tmp_path / "one" / "keys").iterdir():
            path.unlink()
        left = await found(format_)

    assert [backup.path[0] for backup in backups] == ["one", "two"]
    assert [backup.path[0] for backup in left] == ["two"]

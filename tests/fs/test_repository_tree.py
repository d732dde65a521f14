"""Tests of `fs/repository_tree.py`: what a repository's path does, operation by operation."""

import errno
import os
import stat
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import trio
from support.writing import (
    CONFIG,
    PART,
    Open,
    create,
    entry_at,
    make_directory,
    memory,
    names,
    opened,
    place,
    read,
    rename,
    write,
)

from backgate.fs import repository_entries
from backgate.fs.tree import Changes, is_writable
from backgate.gateway.attributes import SYMLINK_MAX
from backgate.gateway.errors import Damaged, FileError, NotFound
from backgate.gateway.provider import NO_METADATA
from backgate.gateway.spooled import SpooledFile


async def refused(work: Awaitable[object]) -> int:
    """Return the errno that `work` is refused with."""
    with pytest.raises(FileError) as caught:
        await work
    return caught.value.errno


async def test_the_tree_is_writable(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        assert is_writable(repository.tree)
        assert (await repository.tree.root()).is_directory


async def test_what_is_written_is_read_back_while_writing(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        root = await tree.root()
        entry, file = await tree.create(root, b"a", mode=0o640, uid=7, gid=8, exclusive=True)
        await file.write_at(10, b"later")
        await file.write_at(0, b"first")

        assert (entry.mode, entry.uid, entry.gid) == (stat.S_IFREG | 0o640, 7, 8)
        assert await read(tree, "a") == b"first\0\0\0\0\0later"
        again = await tree.open_for_writing(await entry_at(tree, "a"), truncate=False)
        await again.write_at(1, b"XX")
        assert bytes(await file.read_at(0, 5)) == b"fXXst"
        assert (await entry_at(tree, "a")).size == 15
        await again.release()
        await file.flush()
        await file.release()


async def test_an_open_file_is_listed_before_it_is_stored(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        root = await repository.tree.root()
        _, file = await repository.tree.create(
            root, b"new", mode=0o600, uid=1, gid=1, exclusive=True
        )
        await write(repository.tree, "stored", b"x")

        assert await names(repository.tree) == ["new", "stored"]
        assert repository.stored_keys() == ["stored"]
        await file.release()


async def test_o_excl_refuses_what_exists(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree, root = repository.tree, await repository.tree.root()
        await write(tree, "file", b"x")
        await write(tree, "staged.tmp", b"x")
        await make_directory(tree, "directory")

        for name in (b"file", b"staged.tmp", b"directory"):
            made = tree.create(root, name, mode=0o600, uid=1, gid=1, exclusive=True)
            assert await refused(made) == errno.EEXIST
        assert await read(tree, "file") == b"x"


async def test_opening_with_truncation_starts_from_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await write(tree, "a", b"long content")

        file = await tree.open_for_writing(await entry_at(tree, "a"), truncate=True)
        await file.write_at(0, b"new")
        assert await read(tree, "a") == b"new"
        assert repository.content("a") == b"long content"
        await file.flush()
        await file.release()

        assert repository.content("a") == b"new"


async def test_truncation_by_path_is_stored(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await write(tree, "a", b"content")

        entry = await tree.change(await entry_at(tree, "a"), Changes(size=3))
        assert (entry.size, repository.content("a")) == (3, b"con")
        await tree.change(entry, Changes(size=5))

        assert repository.content("a") == b"con\0\0"


async def test_a_file_open_but_not_changed_is_not_stored_again(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        tree = repository.tree
        await write(tree, "a", b"content")
        before = [verb for verb, _ in provider.requests].count("put")

        file = await tree.open_for_writing(await entry_at(tree, "a"), truncate=False)
        assert bytes(await file.read_at(2, 3)) == b"nte"
        await file.flush()
        await file.release()

        assert [verb for verb, _ in provider.requests].count("put") == before


async def test_unlink_deletes_in_the_store(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "a", b"x")
        await write(repository.tree, "b.tmp", b"x")

        for path in ("a", "b.tmp"):
            await repository.tree.unlink(*await place(repository.tree, path))

        assert repository.stored_keys() == []
        assert await names(repository.tree) == []
        assert repository.spool.used == 0
        gone = repository.tree.unlink(*await place(repository.tree, "a"))
        assert await refused(gone) == errno.ENOENT


async def test_who_has_an_unlinked_file_open_goes_on(tmp_path: Path) -> None:
    data = os.urandom(10 * PART)
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await write(tree, "a", data)
        entry = await entry_at(tree, "a")
        file = await tree.open_for_writing(entry, truncate=False)
        async with tree.open(entry) as source:
            await tree.unlink(*await place(tree, "a"))

            assert bytes(await source.read_at(0, len(data))) == data
            await file.write_at(0, b"changed")
            assert bytes(await file.read_at(0, len(data))) == b"changed" + data[7:]
            assert file.entry.nlink == 0
            await file.flush()
            await file.release()
        await trio.testing.wait_all_tasks_blocked()

        assert repository.stored_keys() == []


async def test_unlink_while_it_is_being_stored_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        root = await tree.root()
        _, file = await tree.create(root, b"a", mode=0o600, uid=1, gid=1, exclusive=True)
        await file.write_at(0, b"x" * 20 * PART)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.flush)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(tree.unlink, root, b"a")
        await file.release()

        assert repository.stored_keys() == []
        assert await names(tree) == []


@pytest.mark.parametrize("verb", ["unlink", "rename"])
async def test_what_loses_its_name_may_be_closed_meanwhile(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree, spool = repository.tree, repository.spool
        await write(tree, "lost", b"of somebody who closes it")
        await write(tree, "new", b"new")
        file = await tree.open_for_writing(await entry_at(tree, "lost"), truncate=False)
        by, call = (spool.deletions, "delete") if verb == "unlink" else (spool.renames, "rename")
        done = getattr(by, call)

        async def closing(*arguments: object) -> None:
            await file.release()
            await done(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(by, call, closing)
            if verb == "unlink":
                await tree.unlink(*await place(tree, "lost"))
            else:
                await rename(tree, "new", "lost")
        await trio.testing.wait_all_tasks_blocked()

        assert await names(tree) == (["new"] if verb == "unlink" else ["lost"])
        assert repository.stored_keys() == await names(tree)
        assert len(repository.spool.shelf) == 0


@pytest.mark.parametrize("durability", ["store", "journal"])
async def test_what_is_truncated_may_be_closed_meanwhile(
    tmp_path: Path, durability: Literal["store", "journal"], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory()
    config = msgspec.structs.replace(CONFIG, durability=durability)
    async with opened(tmp_path, provider, config) as repository:
        tree, spool = repository.tree, repository.spool
        file = await create(repository, "a")
        await file.write_at(0, b"written and closed")
        await file.flush()
        truncate = spool.truncate

        async def closing(spooled: SpooledFile, size: int) -> None:
            await file.release()
            await truncate(spooled, size)

        with monkeypatch.context() as patch:
            patch.setattr(spool, "truncate", closing)
            await file.change(Changes(size=7))

        assert await read(tree, "a") == b"written"
        await spool.drained()
        assert provider.head("a").size == 7
        assert len(spool.shelf) == 0


async def test_what_is_read_may_be_closed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(10 * PART)
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "a", data)
        entry = await entry_at(repository.tree, "a")
        file = await repository.tree.open_for_writing(entry, truncate=False)
        await file.write_at(5 * PART, b"changed")
        await file.flush()
        fetched = SpooledFile._fetched

        async def closing(*arguments: Any) -> Any:
            await file.release()
            return await fetched(*arguments)

        monkeypatch.setattr(SpooledFile, "_fetched", closing)
        assert bytes(await file.read_at(0, len(data))) == (
            data[: 5 * PART] + b"changed" + data[5 * PART + 7 :]
        )
        assert len(repository.spool.shelf) == 0


async def test_an_empty_directory_is_kept_by_a_marker(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await make_directory(repository.tree, "d")
        await make_directory(repository.tree, "d/e")

        assert [info.key for info in provider.page().objects] == ["d/", "d/e/"]
        assert await names(repository.tree, "d") == ["e"]
        made = repository.tree.make_directory(
            *await place(repository.tree, "d"), mode=0o755, uid=1, gid=1
        )
        assert await refused(made) == errno.EEXIST
    async with opened(tmp_path / "elsewhere", provider) as repository:
        entry = await entry_at(repository.tree, "d/e")
        assert (entry.mode, entry.uid, entry.gid) == (stat.S_IFDIR | 0o755, 1, 2)


async def test_only_an_empty_directory_can_be_removed(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await make_directory(tree, "d")
        await write(tree, "d/x.tmp", b"only in the spool")
        await write(tree, "file", b"x")

        assert await refused(tree.remove_directory(*await place(tree, "d"))) == errno.ENOTEMPTY
        assert await refused(tree.remove_directory(*await place(tree, "file"))) == errno.ENOTDIR
        assert await refused(tree.unlink(*await place(tree, "d"))) == errno.EISDIR
        await tree.unlink(*await place(tree, "d/x.tmp"))
        await tree.remove_directory(*await place(tree, "d"))

        assert await names(tree) == ["file"]


async def test_a_directory_does_not_vanish_with_its_last_child(tmp_path: Path) -> None:
    provider = memory()
    provider.put("implicit/file", b"x")
    async with opened(tmp_path, provider) as repository:
        await repository.tree.unlink(*await place(repository.tree, "implicit/file"))
        assert await names(repository.tree) == ["implicit"]
    async with opened(tmp_path / "elsewhere", provider) as repository:
        assert await names(repository.tree) == ["implicit"]


async def test_a_rename_replaces_a_file(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await write(tree, "old", b"old")
        await write(tree, "new", b"new")
        await write(tree, "staged.tmp", b"staged")

        await rename(tree, "new", "old")
        assert (await names(tree), repository.content("old")) == (["old", "staged.tmp"], b"new")
        await rename(tree, "staged.tmp", "old")

        assert await names(tree) == ["old"]
        assert repository.content("old") == b"staged"


async def test_a_rename_that_must_not_replace_does_not(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "a", b"a")
        await write(repository.tree, "b", b"b")

        refusal = await refused(rename(repository.tree, "a", "b", no_replace=True))

        assert refusal == errno.EEXIST
        assert repository.content("b") == b"b"
        await rename(repository.tree, "a", "c", no_replace=True)
        assert repository.stored_keys() == ["b", "c"]


async def test_a_rename_of_a_stored_object_is_a_copy_and_a_delete(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "a", b"content")
        before = await entry_at(repository.tree, "a")
        provider.requests.clear()

        await rename(repository.tree, "a", "b")

        verbs = [verb for verb, _ in provider.requests if verb not in ("head", "page")]
        assert verbs == ["copy", "delete"]
        after = await entry_at(repository.tree, "b")
        assert (after.mtime_ns, after.mode) == (before.mtime_ns, before.mode)


async def test_an_open_file_follows_its_rename(tmp_path: Path) -> None:
    data = os.urandom(10 * PART)
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await make_directory(tree, "d")
        await write(tree, "d/a", data)
        entry = await entry_at(tree, "d/a")
        file = await tree.open_for_writing(entry, truncate=False)
        async with tree.open(entry) as source:
            await rename(tree, "d", "e")
            await rename(tree, "e/a", "e/b")

            assert bytes(await source.read_at(0, len(data))) == data
            await file.write_at(0, b"changed")
            await file.flush()
            await file.release()

        assert repository.content("e/b") == b"changed" + data[7:]
        assert repository.stored_keys() == ["e/b"]


async def test_a_directory_onto_a_directory_that_is_not_empty_is_enotempty(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        for path in ("mine.tmp", "lock", "empty"):
            await make_directory(tree, path)
        await write(tree, "mine.tmp/me", b"")
        await write(tree, "lock/other", b"")
        await write(tree, "file", b"")

        assert await refused(rename(tree, "mine.tmp", "lock")) == errno.ENOTEMPTY
        assert await refused(rename(tree, "mine.tmp", "file")) == errno.ENOTDIR
        assert await refused(rename(tree, "file", "lock")) == errno.EISDIR
        assert await refused(rename(tree, "lock", "lock/inside")) == errno.EINVAL
        assert await refused(rename(tree, "missing", "x")) == errno.ENOENT
        await rename(tree, "mine.tmp", "empty")

        assert await names(tree, "empty") == ["me"]
        assert await names(tree) == ["empty", "file", "lock"]


async def test_a_directory_with_open_and_staged_files_can_be_renamed(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await make_directory(tree, "old")
        await make_directory(tree, "old/sub")
        await write(tree, "old/sub/x.tmp", b"staged")
        directory = await entry_at(tree, "old")
        _, file = await tree.create(directory, b"o", mode=0o600, uid=1, gid=1, exclusive=True)
        await file.write_at(0, b"open")

        await rename(tree, "old", "new")
        await file.flush()
        await file.release()
        await rename(tree, "new/sub/x.tmp", "new/sub/x")

        assert repository.stored_keys() == ["new/o", "new/sub/x"]
        assert await names(tree, "new") == ["o", "sub"]


async def test_a_symlink_is_an_object_as_s3fs_stores_it(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        root = await repository.tree.root()
        made = await repository.tree.make_symlink(root, b"link", b"../target", uid=1, gid=2)
        assert (made.is_symlink, made.target) == (True, b"../target")
        assert provider.get("link", 0, 100) == b"../target"
        assert (provider.head("link").metadata or NO_METADATA)["mode"] == str(stat.S_IFLNK | 0o777)
    async with opened(tmp_path / "elsewhere", provider) as repository:
        (listed,) = (await repository.tree.children(await repository.tree.root())).entries
        assert not listed.is_settled
        found = await entry_at(repository.tree, "link")
        assert (found.is_symlink, found.target, found.is_settled) == (True, b"../target", True)
        await rename(repository.tree, "link", "moved")
        assert (await entry_at(repository.tree, "moved")).target == b"../target"


async def test_a_symlink_that_holds_no_target_is_damaged(tmp_path: Path) -> None:
    provider = memory()
    provider.put("link", b"a\0b", {"mode": str(stat.S_IFLNK | 0o777)})
    async with opened(tmp_path, provider) as repository:
        with pytest.raises(Damaged):
            await entry_at(repository.tree, "link")


async def test_mode_owner_and_times_come_with_the_object(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        tree = repository.tree
        root = await tree.root()
        _, file = await tree.create(root, b"a", mode=0o600, uid=1, gid=2, exclusive=True)
        await file.write_at(0, b"content")
        await file.change(Changes(mode=0o4755, uid=10, gid=20, mtime_ns=5, atime_ns=6))
        await file.flush()
        await file.release()

        stored = provider.head("a").metadata or NO_METADATA
        assert stored["mode"] == str(stat.S_IFREG | 0o4755)
        assert (stored["uid"], stored["gid"]) == ("10", "20")
        assert (stored["mtime"], stored["atime"]) == ("0.000000005", "0.000000006")


async def test_later_changes_of_attributes_live_in_the_cache(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        tree = repository.tree
        await write(tree, "a", b"content")
        puts = len([verb for verb, _ in provider.requests if verb in ("put", "copy")])

        await tree.change(await entry_at(tree, "a"), Changes(mode=0o400, mtime_ns=123))

        assert len([verb for verb, _ in provider.requests if verb in ("put", "copy")]) == puts
    async with opened(tmp_path, provider) as repository:
        entry = await entry_at(repository.tree, "a")
        assert (entry.mode, entry.mtime_ns) == (stat.S_IFREG | 0o400, 123)
        await rename(repository.tree, "a", "b")
        assert (await entry_at(repository.tree, "b")).mtime_ns == 123


async def test_changing_the_mode_of_an_object_asks_the_store_nothing(tmp_path: Path) -> None:
    provider = memory()
    provider.put("pack", bytes(2 * SYMLINK_MAX))
    async with opened(tmp_path, provider) as repository:
        tree = repository.tree
        assert await names(tree) == ["pack"]
        entry = await entry_at(tree, "pack")
        before = len(provider.requests)

        changed = await tree.change(entry, Changes(mode=0o400))

        assert len(provider.requests) == before
        assert (changed.mode, changed.uid) == (stat.S_IFREG | 0o400, entry.uid)


async def test_times_of_a_staged_file_are_published_with_it(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        tree = repository.tree
        await write(tree, ".name.AbC123", b"content")
        await tree.change(await entry_at(tree, ".name.AbC123"), Changes(mtime_ns=77, mode=0o644))

        await rename(tree, ".name.AbC123", "name")

        assert (await entry_at(tree, "name")).mtime_ns == 77
        assert (provider.head("name").metadata or NO_METADATA)["mtime"] == "0.000000077"


async def test_times_of_a_directory_read_back_exactly(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await make_directory(tree, "d")
        await tree.change(
            await entry_at(tree, "d"), Changes(mtime_ns=1_234_567_890_123_456_789, atime_ns=1)
        )

        entry = await entry_at(tree, "d")
        assert (entry.mtime_ns, entry.atime_ns) == (1_234_567_890_123_456_789, 1)
        before_ns = time.time_ns()
        await write(tree, "d/later", b"")
        assert (await entry_at(tree, "d")).mtime_ns >= before_ns
        await tree.change(await tree.root(), Changes(mode=0o700))
        assert (await tree.root()).mode == stat.S_IFDIR | 0o700


async def test_a_directory_that_is_renamed_keeps_its_time_and_those_below(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        for path in ("old", "old/below", "other"):
            await make_directory(tree, path)
        await write(tree, "old/below/file", b"content")
        await write(tree, "other/file", b"content")
        await tree.unlink(*await place(tree, "other/file"))
        times = [(await entry_at(tree, path)).mtime_ns for path in ("old", "old/below")]

        await rename(tree, "old", "other")

        assert [(await entry_at(tree, path)).mtime_ns for path in ("other", "other/below")] == times


async def test_names_that_no_key_can_have_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree, root = repository.tree, await repository.tree.root()

        async def create(name: bytes) -> int:
            return await refused(tree.create(root, name, mode=0, uid=1, gid=1, exclusive=True))

        assert await create(b"\xff\xfe") == errno.EILSEQ
        assert await create(b"x" * 256) == errno.ENAMETOOLONG
        assert await create(b".backgate") == errno.EPERM
        assert await create(b"%=~x") == errno.EINVAL
        assert await refused(tree.child(root, b"\xff")) == errno.EILSEQ
        assert await refused(tree.child(root, b"missing")) == errno.ENOENT
        directory = root
        with pytest.raises(FileError) as caught:
            for _ in range(10):
                directory = await tree.make_directory(directory, b"d" * 200, mode=0, uid=1, gid=1)
        assert caught.value.errno == errno.ENAMETOOLONG


async def test_hidden_objects_are_not_shown(tmp_path: Path) -> None:
    provider = memory()
    provider.put(".backgate/gateway/1", b"part of a file")
    provider.put("shown", b"")
    async with opened(tmp_path, provider) as repository:
        assert await names(repository.tree) == ["shown"]
        root = await repository.tree.root()
        assert await refused(repository.tree.child(root, b".backgate")) == errno.ENOENT


async def test_a_listing_of_many_pages_shows_each_name_once(tmp_path: Path) -> None:
    provider = memory()
    stored = [f"file{number:05}" for number in range(2500)]
    for key in stored:
        provider.put(key, b"")
    async with opened(tmp_path, provider) as repository:
        tree, root = repository.tree, await repository.tree.root()
        open_names = ["file00000x", "file01500x", "zzz"]
        files = [
            (await tree.create(root, name.encode(), mode=0, uid=1, gid=1, exclusive=True))[1]
            for name in open_names
        ]
        found: list[str] = []
        page = await tree.children(root)
        for file in files:  # stored while somebody lists: each is still shown once
            await file.flush()
            await file.release()
        while True:
            found += [entry.name.decode() for entry in page.entries]
            if page.cursor is None:
                break
            page = await tree.children(root, page.cursor)

        assert found == sorted([*stored, *open_names])


async def test_who_lists_again_sees_what_has_changed(tmp_path: Path) -> None:
    provider = memory()
    stored = [f"file{number:05}" for number in range(2500)]
    for key in stored:
        provider.put(key, b"")
    async with opened(tmp_path, provider) as repository:
        tree = repository.tree
        assert await names(tree) == await names(tree) == stored

        await write(tree, "file01200x", b"in the second page")
        await tree.unlink(await tree.root(), b"file02400")

        assert await names(tree) == sorted({*stored, "file01200x"} - {"file02400"})


async def test_a_bounded_number_of_entries_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_entries, "KEPT", 2002)  # two pages, and what each weighs
    provider = memory()
    for number in range(4000):
        provider.put(f"file{number:05}", b"")
    async with opened(tmp_path, provider) as repository:
        tree = repository.tree
        assert await names(tree) == await names(tree)

        assert len(tree._entries._pages) == 2


async def test_bytes_under_a_key_that_ends_in_a_slash_are_a_file(tmp_path: Path) -> None:
    provider = memory()
    provider.put("a/", b"body")
    provider.put("a/b", b"")
    async with opened(tmp_path, provider) as repository:
        assert await names(repository.tree, "a") == ["%=", "b"]
        assert (await entry_at(repository.tree, "a/%=")).is_file
        assert await read(repository.tree, "a/%=") == b"body"


async def test_statfs_shows_the_configured_capacity(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        assert (await repository.tree.space()).free >= 1 << 50
    configured = msgspec.structs.replace(CONFIG, capacity=1 << 30)
    async with opened(tmp_path, memory(), configured) as repository:
        await write(repository.tree, "a", bytes(1000))
        space = await repository.tree.space()
        assert (space.total, space.free) == (1 << 30, (1 << 30) - 1000)


async def test_what_the_store_lost_is_not_found(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "a", b"x")
        entry = await entry_at(repository.tree, "a")
        provider.delete(["a"])

        async with repository.tree.open(entry) as source:
            with pytest.raises(NotFound):
                await source.read_at(0, 1)


async def assert_whole(repository: Open, path: str, data: bytes) -> None:
    assert repository.content(path) == data


@pytest.mark.parametrize("size", [0, 1, PART, 4 * PART, 4 * PART + 1, 13 * PART + 7])
async def test_files_of_any_size_are_stored_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "file", data)

        await assert_whole(repository, "file", data)
        assert await read(repository.tree, "file") == data
        assert (await entry_at(repository.tree, "file")).size == size


async def test_a_truncating_open_that_fails_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await write(tree, "a", b"content")

        async def truncate(*_: object) -> None:
            await trio.lowlevel.checkpoint()
            raise OSError(errno.ENOSPC, "the spool's disk is full")

        monkeypatch.setattr(repository.spool, "truncate", truncate)
        with pytest.raises(OSError, match="disk is full"):
            await tree.open_for_writing(await entry_at(tree, "a"), truncate=True)

        assert repository.spool.writing("a") is None
        assert await read(tree, "a") == b"content"

"""Tests of `fs/known_names.py`: what was looked up counts until it may have changed."""

import errno
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
from support.writing import (
    CONFIG,
    Open,
    create,
    entry_at,
    make_directory,
    memory,
    opened,
    place,
    rename,
    write,
)

from backgate.fs.known_names import ABSENT_FOR, KnownNames
from backgate.fs.tree import Changes
from backgate.gateway.errors import FileError
from backgate.gateway.metadata.rows import Subdirectory
from backgate.gateway.provider import NO_METADATA, ObjectInfo
from backgate.gateway.repository import Repository


async def kept(repository: Open, *paths: str) -> KnownNames:
    """Return directories as they are looked up now."""
    known = KnownNames(cast(Repository, repository))
    for path in paths:
        above, slash, name = path.rpartition("/")
        generation = repository.metadata.generation
        found = await repository.metadata.look_up_name(above + slash, name)
        assert isinstance(found, Subdirectory)
        known.keep_directory(above + slash, name.encode(), generation, found)
    return known


async def test_names_that_come_and_go_leave_a_directory_known(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await make_directory(tree, "a")
        await make_directory(tree, "a/b")
        known = await kept(repository, "a", "a/b")
        before = known.directory("", b"a"), known.directory("a/", b"b")

        await write(tree, "a/b/file", b"content")
        await write(tree, "a/other", b"content")
        await tree.unlink(*await place(tree, "a/b/file"))

        assert None not in before
        assert (known.directory("", b"a"), known.directory("a/", b"b")) == before
        assert known.directory("", b"b") is None


async def test_a_directory_that_was_changed_is_looked_up(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        await make_directory(repository.tree, "a")
        await make_directory(repository.tree, "b")
        known = await kept(repository, "a", "b")

        await repository.tree.change(await entry_at(repository.tree, "a"), Changes(mode=0o700))

        assert known.directory("", b"a") is None
        assert known.directory("", b"b") is not None


async def test_what_lies_in_a_directory_that_goes_is_looked_up(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        for path in ("a", "a/b", "a/b/c", "ab"):
            await make_directory(tree, path)
        await write(tree, "a/b/c/file", b"content")
        known = await kept(repository, "a", "a/b", "a/b/c", "ab")

        await rename(tree, "a", "z")

        assert known.directory("", b"a") is None
        assert known.directory("a/", b"b") is None
        assert known.directory("a/b/", b"c") is None
        assert known.directory("", b"ab") is not None


async def test_after_what_a_listing_found_a_directory_is_looked_up(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await make_directory(repository.tree, "a")
        known = await kept(repository, "a")
        provider.put("elsewhere", b"by somebody else", NO_METADATA)

        await repository.metadata.refresh()

        assert known.directory("", b"a") is None


async def test_what_is_shown_of_a_directory_follows_its_changes(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await make_directory(tree, "a")
        await tree.change(await entry_at(tree, "a"), Changes(mtime_ns=77))
        first = await entry_at(tree, "a")

        await write(tree, "a/file", b"content")
        touched = await entry_at(tree, "a")
        await tree.change(touched, Changes(mode=0o700, uid=7))
        changed = await entry_at(tree, "a")
        await tree.unlink(*await place(tree, "a/file"))
        await tree.remove_directory(*await place(tree, "a"))
        with pytest.raises(FileError) as refusal:
            await entry_at(tree, "a")
        await write(tree, "a", b"a file")

        assert first.mtime_ns == 77
        assert touched.mtime_ns > 77
        assert (changed.mode & 0o7777, changed.uid) == (0o700, 7)
        assert refusal.value.errno == errno.ENOENT
        assert (await entry_at(tree, "a")).is_file


@pytest.mark.parametrize("made", ["a", "a/b", "a/b/c"])
async def test_a_name_is_absent_until_it_or_something_below_it_is_made(
    tmp_path: Path, made: str
) -> None:
    async with opened(tmp_path, memory()) as repository:
        known = KnownNames(cast(Repository, repository))
        known.keep_absent("a", repository.metadata.generation)
        await repository.metadata.stored(ObjectInfo("ab", 1, 0, "etag"), None)
        before = known.is_absent("a"), known.is_absent("other")

        await repository.metadata.stored(ObjectInfo(made, 1, 0, "etag"), None)

        assert before == (True, False)
        assert not known.is_absent("a")


async def test_a_name_is_not_absent_for_long(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path, memory()) as repository:
        known = KnownNames(cast(Repository, repository))
        known.keep_absent("a", repository.metadata.generation)

        await trio.sleep(ABSENT_FOR)

        assert not known.is_absent("a")


async def test_where_others_write_nothing_is_known(tmp_path: Path) -> None:
    shared = msgspec.structs.replace(CONFIG, writers="shared")
    async with opened(tmp_path, memory(), shared) as repository:
        await make_directory(repository.tree, "a")
        known = await kept(repository, "a")

        known.keep_absent("b", repository.metadata.generation)

        assert known.directory("", b"a") is None
        assert not known.is_absent("b")


async def test_a_file_beside_a_directory_of_its_name_is_absent_and_the_directory_is_not(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, memory()) as repository:
        await make_directory(repository.tree, "a")
        with pytest.raises(FileError) as refusal:
            await entry_at(repository.tree, "%=a")

        with pytest.raises(FileError) as made:
            await create(repository, "a")

        assert (refusal.value.errno, made.value.errno) == (errno.ENOENT, errno.EISDIR)


async def test_what_was_absent_and_made_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        with pytest.raises(FileError):
            await entry_at(repository.tree, "a")
        await write(repository.tree, "a", b"content")

        with pytest.raises(FileError) as refusal:
            await create(repository, "a", exclusive=True)

        assert refusal.value.errno == errno.EEXIST

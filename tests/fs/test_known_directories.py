"""Tests of `fs/known_directories.py`: what was looked up counts until it may have changed."""

import errno
from pathlib import Path

import pytest
from support.writing import Open, entry_at, make_directory, memory, opened, place, rename, write

from backgate.fs.known_directories import KnownDirectories
from backgate.fs.tree import Changes
from backgate.gateway.errors import FileError
from backgate.gateway.metadata.rows import Subdirectory
from backgate.gateway.provider import NO_METADATA


async def kept(repository: Open, *paths: str) -> KnownDirectories:
    """Return directories as they are looked up now."""
    known = KnownDirectories(repository.metadata)
    for path in paths:
        above, slash, name = path.rpartition("/")
        generation = repository.metadata.generation
        found = await repository.metadata.look_up_name(above + slash, name)
        assert isinstance(found, Subdirectory)
        known.put(above + slash, name.encode(), generation, found)
    return known


async def test_names_that_come_and_go_leave_a_directory_known(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        await make_directory(tree, "a")
        await make_directory(tree, "a/b")
        known = await kept(repository, "a", "a/b")
        before = known.get("", b"a"), known.get("a/", b"b")

        await write(tree, "a/b/file", b"content")
        await write(tree, "a/other", b"content")
        await tree.unlink(*await place(tree, "a/b/file"))

        assert None not in before
        assert (known.get("", b"a"), known.get("a/", b"b")) == before
        assert known.get("", b"b") is None


async def test_a_directory_that_was_changed_is_looked_up(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        await make_directory(repository.tree, "a")
        await make_directory(repository.tree, "b")
        known = await kept(repository, "a", "b")

        await repository.tree.change(await entry_at(repository.tree, "a"), Changes(mode=0o700))

        assert known.get("", b"a") is None
        assert known.get("", b"b") is not None


async def test_what_lies_in_a_directory_that_goes_is_looked_up(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree = repository.tree
        for path in ("a", "a/b", "a/b/c", "ab"):
            await make_directory(tree, path)
        await write(tree, "a/b/c/file", b"content")
        known = await kept(repository, "a", "a/b", "a/b/c", "ab")

        await rename(tree, "a", "z")

        assert known.get("", b"a") is None
        assert known.get("a/", b"b") is None
        assert known.get("a/b/", b"c") is None
        assert known.get("", b"ab") is not None


async def test_after_what_a_listing_found_a_directory_is_looked_up(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await make_directory(repository.tree, "a")
        known = await kept(repository, "a")
        provider.put("elsewhere", b"by somebody else", NO_METADATA)

        await repository.metadata.refresh()

        assert known.get("", b"a") is None


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

"""What every backup format must hold to. A format's tests subclass `FormatContract`.

class TestTar(FormatContract):
    format_class = TarFormat
    def back_up(self, directory, store): ...
    def spoil(self, store): ...
"""

import errno
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from support.compare import differences
from support.extract import content, entries, extract, find, read_all
from support.objects import FolderObjects
from support.trees import make_odd_tree

from backgate.fs.format import Backup, BackupFormat, Surroundings
from backgate.fs.tree import Tree
from backgate.gateway.errors import BackgateError, FileError
from backgate.gateway.units import MIB

MEMORY = 64 * MIB  # bytes that a format may keep in memory
NAME_MAX = 255  # bytes in one component, the kernel's limit
ODD_RANGES = ((0, 1), (0, 0), (2_999_999, 5), (1_048_575, 2), (131_072, 1_500_000), (5_000_000, 9))


@asynccontextmanager
async def surroundings(
    store: Path, cache: Path, secret: bytes | None = None
) -> AsyncIterator[Surroundings]:
    """Lend a format what the gateway would: a folder's objects, a cache directory, a nursery."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    failed: BackgateError | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield Surroundings(
                FolderObjects(store), cache, secret, nursery, trio.CapacityLimiter(4), MEMORY
            )
        except BackgateError as error:
            failed = error  # raised below, where the nursery does not wrap it in a group
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed


async def found(format_: BackupFormat) -> list[Backup]:
    """Return what the format finds among all objects."""
    objects = format_.surroundings.objects
    assert isinstance(objects, FolderObjects)
    landmarks = [info for info in await objects.all() if format_.is_landmark(info.key)]
    return await format_.backups(landmarks)


class FormatContract:
    """The suite. `back_up` writes one complete backup of `directory` into the folder `store`."""

    format_class: type[BackupFormat]
    secret: bytes | None = None
    below = b""  # where in the backup the contents of `directory` lie

    def back_up(self, directory: Path, store: Path) -> None:
        """Back `directory` up into `store`, as the real tool does."""
        raise NotImplementedError

    def spoil(self, store: Path) -> None:
        """Damage the backup that `back_up` wrote, so that it cannot be shown."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def tree_path(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The directory that was backed up; tests do not change it."""
        return make_odd_tree(tmp_path_factory.mktemp("backed-up") / "tree")

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory, tree_path: Path) -> Path:
        """A store with one backup; tests do not change it."""
        store = tmp_path_factory.mktemp("store")
        (store / "unrelated").write_bytes(b"no backup")
        cls().back_up(tree_path, store)
        return store

    @pytest.fixture
    async def format_(self, store: Path, tmp_path: Path) -> AsyncIterator[BackupFormat]:
        async with surroundings(store, tmp_path / "cache", self.secret) as lent:
            yield self.format_class(lent)

    @pytest.fixture
    async def tree(self, format_: BackupFormat) -> AsyncIterator[Tree]:
        backup, *_ = await found(format_)
        async with format_.open(backup) as tree:
            yield tree

    async def test_a_complete_backup_is_found_under_a_safe_path(
        self, format_: BackupFormat
    ) -> None:
        (backup,) = await found(format_)

        assert backup.is_complete, backup.reason
        assert backup.path
        for part in backup.path:
            assert part not in ("", ".", "..")
            assert not set(part) & {"/", "\0"}
            assert len(os.fsencode(part)) <= NAME_MAX

    async def test_what_is_found_twice_is_the_same(self, format_: BackupFormat) -> None:
        assert await found(format_) == await found(format_)

    async def test_a_closer_look_finds_nothing_wrong_with_what_is_whole(
        self, format_: BackupFormat
    ) -> None:
        backups = await found(format_)

        assert await format_.examined(backups) == backups

    @pytest.mark.slow
    async def test_the_tree_equals_what_was_backed_up(
        self, tree: Tree, tree_path: Path, tmp_path: Path
    ) -> None:
        await extract(tree, tmp_path / "out")

        assert differences(tmp_path / "out" / os.fsdecode(self.below), tree_path) == []

    async def test_the_tree_never_changes(self, tree: Tree) -> None:
        assert tree.is_immutable

    async def test_the_root_has_no_name(self, tree: Tree) -> None:
        root = await tree.root()

        assert root.name == b""
        assert root.is_directory

    async def test_every_child_is_found_by_its_name_as_the_page_shows_it(self, tree: Tree) -> None:
        for path in (b"", b"names", b"many"):
            directory = await find(tree, self.below + b"/" + path)
            async for entry in entries(tree, directory):
                assert await tree.child(directory, entry.name) == entry

    async def test_pages_give_every_name_once(self, tree: Tree, tree_path: Path) -> None:
        for path in ("many", "names", ""):
            directory = await find(tree, self.below + b"/" + path.encode())
            names = [entry.name async for entry in entries(tree, directory)]
            assert sorted(names) == sorted(os.listdir(os.fsencode(tree_path / path)))

    async def test_a_name_that_is_not_there_is_enoent(self, tree: Tree) -> None:
        directory = await find(tree, self.below)
        for name in (b"absent", b"x" * 300, b"\xff\xfe"):
            with pytest.raises(FileError) as caught:
                await tree.child(directory, name)
            assert caught.value.errno == errno.ENOENT

    async def test_a_file_is_no_directory_and_a_directory_no_file(self, tree: Tree) -> None:
        file = await find(tree, self.below + b"/small")
        with pytest.raises(FileError) as caught:
            await tree.children(file)
        assert caught.value.errno == errno.ENOTDIR
        with pytest.raises(FileError) as caught:
            await tree.child(file, b"x")
        assert caught.value.errno == errno.ENOTDIR
        with pytest.raises(FileError) as caught:
            async with tree.open(await tree.root()):
                pass
        assert caught.value.errno == errno.EISDIR

    async def test_any_range_equals_the_slice(self, tree: Tree, tree_path: Path) -> None:
        for name in (b"random", b"text", b"sparse", b"small", b"empty"):
            whole = (tree_path / name.decode()).read_bytes()
            async with tree.open(await find(tree, self.below + b"/" + name)) as source:
                assert source.size == len(whole)
                for offset, length in ODD_RANGES:
                    data = await source.read_at(offset, length)
                    assert data == whole[offset : offset + length]

    async def test_many_tasks_read_at_once(self, tree: Tree, tree_path: Path) -> None:
        async def check(name: str) -> None:
            assert (
                await content(tree, self.below + b"/" + name.encode())
                == (tree_path / name).read_bytes()
            )

        async with trio.open_nursery() as nursery:
            for name in ("random", "text", "random again", "text", "many/0299"):
                nursery.start_soon(check, name)

    async def test_a_cancelled_read_harms_no_later_one(self, tree: Tree, tree_path: Path) -> None:
        file = await find(tree, self.below + b"/random")
        async with tree.open(file) as source:
            with trio.CancelScope() as scope:
                scope.cancel()
                await source.read_at(1_000_000, 500_000)
            assert scope.cancelled_caught

            assert await read_all(source) == (tree_path / "random").read_bytes()

    async def test_hard_links_share_an_identity(self, tree: Tree) -> None:
        one = await find(tree, self.below + b"/random")
        other = await find(tree, self.below + b"/random again")

        assert one.identity is not None
        assert one.identity == other.identity
        assert one.nlink == other.nlink == 3

    async def test_two_openers_do_not_disturb_one_another(self, format_: BackupFormat) -> None:
        (backup,) = await found(format_)
        contents: list[bytes] = []

        async def read() -> None:
            async with format_.open(backup) as tree:
                contents.append(await content(tree, self.below + b"/small"))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)

        assert contents == [b"small\n"] * 3

    async def test_the_cache_may_vanish_between_runs(self, store: Path, tmp_path: Path) -> None:
        for run in ("first", "second"):
            async with surroundings(store, tmp_path / run, self.secret) as lent:
                format_ = self.format_class(lent)
                (backup,) = await found(format_)
                async with format_.open(backup) as tree:
                    assert await content(tree, self.below + b"/small") == b"small\n"

    async def test_a_spoilt_backup_is_an_error_of_ours_and_stays_within_itself(
        self, store: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(store, tmp_path / "spoilt")
        self.spoil(tmp_path / "spoilt")
        async with surroundings(tmp_path / "spoilt", tmp_path / "cache", self.secret) as lent:
            format_ = self.format_class(lent)

            for backup in await found(format_):
                if backup.is_complete:
                    with pytest.raises(BackgateError):
                        async with format_.open(backup) as tree:
                            await extract(tree, tmp_path / "out")
                else:
                    assert backup.reason

    async def test_foreign_keys_are_no_landmarks(self, format_: BackupFormat) -> None:
        for key in ("unrelated", "a/b/photo.jpg", "", "tar", "notes.txt", "dir/"):
            assert not format_.is_landmark(key)

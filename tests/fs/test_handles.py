"""Open files and directories: read while written, listed while they change, and let go of."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from support.dict_tree import PAGE, DictTree

from backgate.fs.handles import DirectoryHandle, Handles
from backgate.fs.inodes import Inode, Inodes
from backgate.fs.lookers import Lookers
from backgate.fs.replies import Replies
from backgate.gateway.errors import FileError, Unreachable
from backgate.gateway.source import Data
from backgate.gateway.units import KIB, MIB


@dataclass
class World:
    """A tree, the handles on it, and what happened to it."""

    tree: DictTree
    inodes: Inodes
    handles: Handles
    happened: list[str]

    async def inode(self, name: str) -> Inode:
        """Return the inode of a name in the root, as after a lookup."""
        root = self.inodes.root
        tree, entry = await self.inodes.inside(root)
        return self.inodes.learned(root, tree, await tree.child(entry, name.encode()))

    async def write_handle(self, name: str, *, appends: bool = False) -> int:
        """Open a name for writing."""
        inode = await self.inode(name)
        file = await self.tree.open_for_writing(inode.entry, truncate=False)
        return self.handles.opened_for_writing(inode, file, appends=appends)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    tree, happened = DictTree(), list[str]()
    tree.happened = lambda verb, name: happened.append(f"{verb} {name.decode()}")
    tree.add_file("file", b"content")
    inodes = Inodes(tree, await tree.root())
    handles = Handles(inodes, Replies(), None)
    async with handles.kept():
        yield World(tree, inodes, handles, happened)


async def test_a_file_is_open_until_it_is_released() -> None:
    async with world() as it:
        number = await it.handles.open_for_reading(await it.inode("file"))

        assert await it.handles.read(number, 2, 3) == b"nte"
        assert "closed file" not in it.happened
        await it.handles.release(number)
        await trio.testing.wait_all_tasks_blocked()
        assert it.happened.count("closed file") == 1
        assert it.handles.readers == 0


async def test_a_file_that_cannot_be_opened_leaves_nothing_behind() -> None:
    async def refuse(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "open":
            raise Unreachable("store: no answer")

    async with world() as it:
        inode = await it.inode("file")
        it.tree.hinder = refuse
        with pytest.raises(Unreachable):
            await it.handles.open_for_reading(inode)

        assert it.handles.readers == 0
        assert inode.opened is None


async def test_a_reader_follows_the_writers_of_its_file() -> None:
    async with world() as it:
        reader = await it.handles.open_for_reading(await it.inode("file"))
        writer = await it.write_handle("file")

        await it.handles.write(writer, 0, b"WRITTEN")
        assert await it.handles.read(reader, 0, 100) == b"WRITTEN"
        await it.handles.flush(writer)
        await it.handles.release(writer)
        assert await it.handles.read(reader, 0, 100) == b"WRITTEN"

        assert it.happened.count("open file") == 2  # again, for the new content
        assert it.happened.count("release file") == 1


async def test_a_reader_that_came_while_it_was_written_opens_it_later() -> None:
    async with world() as it:
        writer = await it.write_handle("file")
        reader = await it.handles.open_for_reading(await it.inode("file"))
        await it.handles.write(writer, 7, b" and more")

        assert await it.handles.read(reader, 0, 100) == b"content and more"
        assert "open file" not in it.happened
        await it.handles.release(writer)
        assert await it.handles.read(reader, 0, 100) == b"content and more"


async def test_an_unlinked_file_is_released_after_its_last_reader() -> None:
    async with world() as it:
        writer = await it.write_handle("file")
        reader = await it.handles.open_for_reading(await it.inode("file"))
        root = await it.tree.root()
        await it.tree.unlink(root, b"file")
        it.inodes.removed(it.inodes.root, b"file")

        await it.handles.release(writer)
        assert "release file" not in it.happened
        assert await it.handles.read(reader, 0, 100) == b"content"
        await it.handles.release(reader)

        assert it.happened.count("release file") == 1


async def test_every_open_for_writing_is_released_once() -> None:
    async with world() as it:
        numbers = [await it.write_handle("file") for _ in range(3)]
        assert it.handles.writers == 3

        for number in numbers:
            await it.handles.release(number)

        assert it.happened.count("release file") == 3


async def test_appended_bytes_go_to_the_end_wherever_the_kernel_thinks_it_is() -> None:
    async with world() as it:
        first = await it.write_handle("file", appends=True)
        second = await it.write_handle("file", appends=True)

        await it.handles.write(first, 7, b"1")
        await it.handles.write(second, 7, b"2")

        assert await it.handles.read(first, 0, 100) == b"content12"


async def test_a_file_open_for_reading_cannot_be_written() -> None:
    async with world() as it:
        number = await it.handles.open_for_reading(await it.inode("file"))

        with pytest.raises(FileError):
            await it.handles.write(number, 0, b"x")


async def listed(handle: DirectoryHandle, position: int = 0) -> list[bytes]:
    names: list[bytes] = []
    while entries := await handle.after(position):
        names += [entry.name for entry in entries]
        position += len(entries)
    return names


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
async def test_a_listing_is_whole_whatever_its_pages(count: int) -> None:
    tree = DictTree()
    names = [f"{number:05}".encode() for number in range(count)]
    for name in names:
        tree.add_file(name.decode())
    inodes = Inodes(tree, await tree.root())

    handle = DirectoryHandle(inodes.root, inodes, Lookers(), 1)

    assert await listed(handle) == names
    assert await listed(handle, count // 2) == names[count // 2 :]


async def test_a_listing_goes_on_by_name_when_names_before_are_removed() -> None:
    tree = DictTree()
    names = [f"{number:05}".encode() for number in range(3 * PAGE)]
    for name in names:
        tree.add_file(name.decode())
    inodes = Inodes(tree, await tree.root())
    handle = DirectoryHandle(inodes.root, inodes, Lookers(), 1)

    first = [entry.name for entry in await handle.after(0)]
    for name in first:
        del tree.top.children[name]

    assert first + await listed(handle, len(first)) == names


async def test_a_rewound_listing_shows_what_is_there_now() -> None:
    tree = DictTree()
    tree.add_file("a")
    inodes = Inodes(tree, await tree.root())
    handle = DirectoryHandle(inodes.root, inodes, Lookers(), 1)
    assert await listed(handle) == [b"a"]

    tree.add_file("b")
    handle.rewind()

    assert await listed(handle) == [b"a", b"b"]


async def test_a_page_is_asked_for_once() -> None:
    tree = DictTree()
    for number in range(2 * PAGE):
        tree.add_file(f"{number:05}")
    asked: list[str] = []
    tree.happened = lambda verb, name: asked.append(verb)
    inodes = Inodes(tree, await tree.root())
    handle = DirectoryHandle(inodes.root, inodes, Lookers(), 1)

    for position in range(0, 2 * PAGE, 100):
        await handle.after(position)
    await handle.after(2 * PAGE)

    assert asked.count("children") == 2


@asynccontextmanager
async def reader_with_a_stuck_push() -> AsyncIterator[tuple[World, int, threading.Event]]:
    """Provide a reader for whom a page is just being pushed, and what lets the push go on."""
    begun, gate = threading.Event(), threading.Event()

    def push(number: int, offset: int, data: Data) -> None:
        begun.set()
        gate.wait()

    async with world() as it:
        it.tree.add_file("large", bytes(8 * MIB))
        it.handles = Handles(it.inodes, Replies(), push)
        async with it.handles.kept():
            number = await it.handles.open_for_reading(await it.inode("large"))
            for offset in range(0, 2 * MIB, 128 * KIB):
                await it.handles.read(number, offset, 128 * KIB)
            await trio.to_thread.run_sync(begun.wait)
            yield it, number, gate
            gate.set()


async def test_nothing_changes_while_a_page_is_on_its_way_to_the_kernel() -> None:
    async with reader_with_a_stuck_push() as (it, _, gate), trio.open_nursery() as nursery:
        expected = trio.Event()

        async def expect() -> None:
            await it.handles.expect_changes(await it.inode("large"))
            expected.set()

        nursery.start_soon(expect)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not expected.is_set()
        gate.set()
        await expected.wait()


async def test_that_is_so_even_when_its_reader_has_closed_the_file() -> None:
    async with reader_with_a_stuck_push() as (it, number, gate), trio.open_nursery() as nursery:
        expected = trio.Event()

        async def expect() -> None:
            await it.handles.expect_changes(await it.inode("large"))
            expected.set()

        nursery.start_soon(it.handles.release, number)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(expect)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not expected.is_set()
        gate.set()
        await expected.wait()

"""What was found to have changed in the store, the kernel is told to ask for again."""

from collections.abc import Iterable

import pytest
import trio
from support.dict_tree import DictTree

from backgate.fs.inodes import Directory, Inode, Inodes, Opened
from backgate.fs.outdated import Outdated, Path


@pytest.fixture
async def inodes() -> Inodes:
    """What a kernel knows that has looked at web/sub/a, and at the directory `other`."""
    tree = DictTree()
    tree.add_file("web/sub/a", b"1")
    tree.add_file("other/b", b"1")
    root = await tree.root()
    inodes = Inodes(tree, root)
    directory = inodes.root
    for name in (b"web", b"sub", b"a"):
        entry = await tree.child(directory.entry, name)
        inode = inodes.learned(directory, tree, entry)
        directory = inode if isinstance(inode, Directory) else directory
    inodes.learned(inodes.root, tree, await tree.child(root, b"other"))
    return inodes


async def told(inodes: Inodes, *changes: Iterable[Path]) -> list[int]:
    """Return the inodes that the kernel is told to ask for again when these changes come in."""
    asked: list[int] = []
    coming, is_done = list(changes), trio.Event()

    async def changed() -> Iterable[Path]:
        if not coming:
            is_done.set()  # it asks for more when it has told what there was
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return coming.pop(0)

    outdated = Outdated(inodes, asked.append, changed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outdated.run)
        await is_done.wait()
        nursery.cancel_scope.cancel()
    return asked


def inode(inodes: Inodes, *path: bytes) -> Inode:
    found: Inode = inodes.root
    for name in path:
        assert isinstance(found, Directory)
        found = found.children[name]
    return found


async def test_a_file_that_it_knows_is_asked_for_again(inodes: Inodes) -> None:
    file = inode(inodes, b"web", b"sub", b"a").number

    assert await told(inodes, [[b"web", b"sub", b"a"]]) == [file]


async def test_what_it_does_not_know_is_nothing_to_it(inodes: Inodes) -> None:
    changes = [[b"other", b"new"], [b"fresh", b"deep"], [b"web", b"sub", b"a", b"below"]]

    assert await told(inodes, changes) == []


async def test_a_file_that_is_open_stays_as_it_was_opened(inodes: Inodes) -> None:
    inode(inodes, b"web", b"sub", b"a").opened = Opened()

    assert await told(inodes, [[b"web", b"sub", b"a"]]) == []


async def test_a_kernel_that_has_just_forgotten_it_is_no_error(inodes: Inodes) -> None:
    def forgotten(number: int) -> None:
        raise FileNotFoundError

    async def changed() -> Iterable[Path]:
        await trio.lowlevel.checkpoint()
        if is_told.is_set():
            scope.cancel()
        is_told.set()
        return [[b"web"]]

    is_told, scope = trio.Event(), trio.CancelScope()
    with scope:
        await Outdated(inodes, forgotten, changed).run()

    assert is_told.is_set()

"""What was found to have changed in the store, the kernel is told to ask for again."""

from collections.abc import Iterable

import pytest
import trio
from support.dict_tree import DictTree

from backgate.fs.forgetting import Forgetting
from backgate.fs.inodes import Directory, Inodes
from backgate.fs.outdated import MANY, Outdated, Path


class Kernel:
    """Notes which names it was asked to forget."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, bytes]] = []

    def forget(self, directory: int, name: bytes) -> None:
        self.asked.append((directory, name))


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


async def told(inodes: Inodes, *changes: Iterable[Path]) -> list[tuple[int, bytes]]:
    """Return what the kernel is asked to forget when these changes come in."""
    kernel, coming, is_done = Kernel(), list(changes), trio.Event()

    async def changed() -> Iterable[Path]:
        if not coming:
            is_done.set()  # it asks for more when it has told what there was
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return coming.pop(0)

    outdated = Outdated(inodes, Forgetting(inodes, kernel.forget), changed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outdated.run)
        await is_done.wait()
        nursery.cancel_scope.cancel()
    return sorted(kernel.asked)


def number(inodes: Inodes, *path: bytes) -> int:
    directory = inodes.root
    for name in path:
        inode = directory.children[name]
        assert isinstance(inode, Directory)
        directory = inode
    return directory.number


async def test_a_name_that_it_keeps_is_forgotten_in_its_directory(inodes: Inodes) -> None:
    sub = number(inodes, b"web", b"sub")

    assert await told(inodes, [[b"web", b"sub", b"a"]]) == [(sub, b"a")]


async def test_a_name_that_may_be_known_to_be_absent_is_forgotten_too(inodes: Inodes) -> None:
    other = number(inodes, b"other")

    asked = await told(inodes, [[b"other", b"new"]], [[b"fresh", b"deep", b"file"]])

    assert asked == [(1, b"fresh"), (other, b"new")]


async def test_a_change_of_the_top_itself_is_nothing_to_forget(inodes: Inodes) -> None:
    assert await told(inodes, [[]]) == []


async def test_of_very_many_changes_some_are_told(inodes: Inodes) -> None:
    many = [[b"other", b"%d" % number] for number in range(2 * MANY)]

    assert len(await told(inodes, many)) == MANY


async def test_a_kernel_that_is_left_alone_is_asked_nothing(inodes: Inodes) -> None:
    kernel = Kernel()
    forgetting = Forgetting(inodes, kernel.forget)

    await forgetting.stop()
    await forgetting.forget([(1, b"web")])

    assert kernel.asked == []

"""The table of inodes stays small, and what is in use stays in it."""

import pytest
import trio
from support.dict_tree import DictTree, Node

from backgate.fs import forgetting
from backgate.fs.forgetting import Forgetting
from backgate.fs.inodes import Inode, Inodes, Opened
from backgate.fs.tree import DIRECTORY_MODE

MANY = 200


class Kernel:
    """Tells the table what the kernel would, when it is asked to forget."""

    def __init__(self, inodes: Inodes) -> None:
        self.inodes = inodes
        self.asked: list[bytes] = []
        self.in_use: set[bytes] = set()
        self.is_busy = False

    def is_held_up(self) -> bool:
        return self.is_busy

    def invalidate(self, directory: int, name: bytes) -> None:
        self.asked.append(name)
        if name in self.in_use:
            return
        trio.from_thread.run_sync(self._forget, directory, name)

    def _forget(self, directory: int, name: bytes) -> None:
        inode = self.inodes.directory(directory).children.get(name)
        if inode is None:
            raise FileNotFoundError
        self.inodes.forget(inode.number, inode.lookups)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "MANY", MANY)
    monkeypatch.setattr(forgetting, "ENOUGH", MANY // 2)
    monkeypatch.setattr(forgetting, "TOO_MANY", MANY + MANY // 5)
    monkeypatch.setattr(forgetting, "BATCH", 10)
    monkeypatch.setattr(forgetting, "RETRY_AFTER", 0.01)


async def known(count: int) -> tuple[Inodes, list[Inode]]:
    """Return a table with `count` files in it."""
    tree = DictTree()
    inodes = Inodes(tree, await tree.root())
    entries = [tree.add_file(f"{number:04}").entry(b"%04d" % number) for number in range(count)]
    return inodes, [inodes.learned(inodes.root, tree, entry) for entry in entries]


@pytest.mark.usefixtures("small")
async def test_the_longest_unused_are_forgotten() -> None:
    inodes, files = await known(2 * MANY)
    kernel = Kernel(inodes)
    keeper = Forgetting(inodes, kernel.invalidate, kernel.is_held_up)
    inodes.oldest(10 * MANY)  # a while ago
    for file in files[:50]:
        inodes.learned(inodes.root, inodes.root.tree, file.entry)
    files[50].opened = Opened()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await keeper.make_room()
        assert len(inodes) <= MANY + MANY // 5
        while len(inodes) > MANY // 2:
            await keeper.shrunk()
        nursery.cancel_scope.cancel()

    assert all(inodes[file.number] is file for file in files[:51])
    assert inodes.forgotten == 2 * MANY + 1 - len(inodes)


@pytest.mark.usefixtures("small")
async def test_what_the_kernel_keeps_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "WAIT_MAX", 0.1)
    inodes, files = await known(2 * MANY)
    kernel = Kernel(inodes)
    kernel.in_use = {file.name for file in files}
    keeper = Forgetting(inodes, kernel.invalidate, kernel.is_held_up)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await keeper.make_room()
        nursery.cancel_scope.cancel()

    assert len(inodes) == 2 * MANY + 1
    assert len(kernel.asked) < 20 * MANY


@pytest.mark.usefixtures("small")
async def test_few_inodes_are_left_alone() -> None:
    inodes, _ = await known(MANY - 1)
    kernel = Kernel(inodes)

    await Forgetting(inodes, kernel.invalidate, kernel.is_held_up).make_room()

    assert kernel.asked == []


@pytest.mark.usefixtures("small")
async def test_nothing_is_asked_once_it_is_stopped() -> None:
    inodes, _ = await known(2 * MANY)
    kernel = Kernel(inodes)
    keeper = Forgetting(inodes, kernel.invalidate, kernel.is_held_up)

    await keeper.stop()
    await keeper.run()

    assert kernel.asked == []


@pytest.mark.usefixtures("small")
async def test_nothing_is_asked_while_somebody_has_a_directory_locked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forgetting, "WAIT_MAX", 0.1)
    inodes, _ = await known(2 * MANY)
    kernel = Kernel(inodes)
    kernel.is_busy = True
    keeper = Forgetting(inodes, kernel.invalidate, kernel.is_held_up)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await keeper.make_room()
        assert kernel.asked == []

        kernel.is_busy = False
        while len(inodes) > MANY // 2:
            await keeper.shrunk()
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("small")
async def test_where_nothing_can_be_forgotten_nobody_is_kept_waiting(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "RETRY_AFTER", 5.0)
    tree = DictTree()
    inodes = Inodes(tree, await tree.root())
    for number in range(2 * MANY):
        directory = tree.add(f"{number:04}", Node(mode=DIRECTORY_MODE))
        inodes.learned(inodes.root, tree, directory.entry(b"%04d" % number))
    kernel = Kernel(inodes)
    keeper = Forgetting(inodes, kernel.invalidate, kernel.is_held_up)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        began = trio.current_time()
        for _ in range(10):
            await keeper.make_room()
        took = trio.current_time() - began
        nursery.cancel_scope.cancel()

    assert took < 5

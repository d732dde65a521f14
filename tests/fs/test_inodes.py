"""The table of inodes: what the kernel was told of, under every name it has, until it forgets."""

import errno
import stat
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dict_tree import DictTree, FrozenTree, Node

from backgate.fs.inodes import ROOT, Directory, Inode, Inodes, Opened
from backgate.fs.root_tree import RootTree
from backgate.fs.tree import Entry, Tree
from backgate.gateway.errors import FileError


async def table(tree: Tree) -> Inodes:
    return Inodes(tree, await tree.root())


async def looked_up(inodes: Inodes, path: str) -> Inode:
    """Look up `path` as the kernel does, one name at a time, each of which counts."""
    inode: Inode = inodes.root
    for name in path.encode().split(b"/"):
        directory = inodes.directory(inode.number)
        tree, entry = await inodes.inside(directory)
        inode = inodes.learned(directory, tree, await tree.child(entry, name))
    return inode


async def test_a_name_has_one_number_while_the_kernel_knows_it() -> None:
    tree = DictTree()
    tree.add_file("dir/file")
    inodes = await table(tree)

    first = await looked_up(inodes, "dir/file")
    again = await looked_up(inodes, "dir/file")

    assert first is again
    assert inodes[first.number] is first
    assert len(inodes) == 3


async def test_what_is_forgotten_as_often_as_told_is_gone() -> None:
    tree = DictTree()
    tree.add_file("dir/file")
    inodes = await table(tree)
    file = await looked_up(inodes, "dir/file")
    await looked_up(inodes, "dir/file")
    directory = file.parent

    inodes.forget(file.number, 1)
    assert inodes[file.number] is file
    inodes.forget(file.number, 1)
    with pytest.raises(FileError) as failed:
        inodes[file.number]
    assert failed.value.errno == errno.ESTALE
    assert directory is not None
    inodes.forget(directory.number, 2)
    assert len(inodes) == 1


async def test_a_directory_stays_while_something_in_it_is_known() -> None:
    tree = DictTree()
    tree.add_file("dir/file")
    inodes = await table(tree)
    file = await looked_up(inodes, "dir/file")
    directory = file.parent
    assert directory is not None

    inodes.forget(directory.number, 1)
    assert inodes[directory.number] is directory

    inodes.forget(file.number, 1)
    assert len(inodes) == 1


async def test_the_root_is_never_forgotten() -> None:
    inodes = await table(DictTree())

    inodes.forget(ROOT, 1)
    inodes.forget(99, 1)

    assert inodes[ROOT] is inodes.root


async def test_hard_links_are_one_inode_with_two_names() -> None:
    tree = DictTree()
    shared = tree.add_file("one")
    shared.nlink = 2
    tree.add("dir/two", shared)
    inodes = await table(tree)

    one, two = await looked_up(inodes, "one"), await looked_up(inodes, "dir/two")

    assert one is two
    assert [name for _, name in one.names()] == [b"one", b"two"]
    inodes.removed(inodes.root, b"one")
    assert [name for _, name in one.names()] == [b"two"]
    inodes.forget(one.number, 2)
    assert len(inodes) == 2  # the root, and `dir`


async def test_hard_links_have_one_number_though_one_was_forgotten_before_the_other() -> None:
    tree = DictTree()
    shared = tree.add_file("one")
    shared.nlink = 2
    tree.add("dir/two", shared)
    inodes = await table(tree)
    numbers = []
    for name in ("one", "dir/two", "one"):
        inode = await looked_up(inodes, name)
        numbers.append(inode.number)
        inodes.forget(inode.number, inode.lookups)

    assert len(set(numbers)) == 1


async def test_equal_identities_of_two_trees_are_two_inodes() -> None:
    trees = {}
    for name in (b"a", b"b"):
        trees[name] = DictTree()
        node = trees[name].add_file("file")
        node.nlink, node.number = 2, 5
    inodes = await table(RootTree(trees))

    assert await looked_up(inodes, "a/file") is not await looked_up(inodes, "b/file")


async def test_another_file_of_the_same_name_is_another_inode() -> None:
    tree = DictTree()
    tree.add_file("name")
    inodes = await table(tree)
    before = await looked_up(inodes, "name")

    tree.add("name", Node(stat.S_IFLNK | 0o777, target=b"elsewhere"))
    after = await looked_up(inodes, "name")

    assert before.number != after.number
    assert before.is_nameless
    assert inodes[before.number] is before  # the kernel still holds it


async def test_a_renamed_directory_is_looked_up_at_its_new_place() -> None:
    tree = DictTree()
    tree.add_file("old/sub/file")
    inodes = await table(tree)
    file = await looked_up(inodes, "old/sub/file")
    root = await tree.root()

    await tree.rename(root, b"old", root, b"new")
    inodes.renamed(inodes.root, b"old", inodes.root, b"new")
    tree.happened = lambda verb, name: asked.append(f"{verb} {name.decode()}")
    asked: list[str] = []
    await inodes.entry(file)

    assert asked == ["child new", "child sub", "child file"]
    assert await looked_up(inodes, "new/sub/file") is file


async def test_a_name_that_was_replaced_loses_its_inode() -> None:
    tree = DictTree()
    tree.add_file("a", b"a")
    tree.add_file("b", b"b")
    inodes = await table(tree)
    a, b = await looked_up(inodes, "a"), await looked_up(inodes, "b")

    inodes.renamed(inodes.root, b"a", inodes.root, b"b")

    assert a.name == b"b"
    assert b.is_nameless
    assert (await inodes.entry(b)).nlink == 0


async def test_an_immutable_tree_is_not_asked_again() -> None:
    tree = DictTree()
    tree.add_file("file")
    inodes = await table(FrozenTree(tree))
    file = await looked_up(inodes, "file")
    asked: list[str] = []
    tree.happened = lambda verb, name: asked.append(verb)

    await inodes.entry(file)

    assert asked == []


async def test_a_junction_is_entered_only_when_somebody_looks_inside() -> None:
    inner = DictTree()
    asked: list[str] = []
    inner.happened = lambda verb, name: asked.append(verb)
    inodes = await table(FrozenTree(DictTree()))
    outside = Entry(name=b"inner", mode=stat.S_IFDIR | 0o755, junction=FrozenTree(inner))

    directory = inodes.learned(inodes.root, inodes.root.tree, outside)
    assert asked == []

    assert isinstance(directory, Directory)
    tree, _ = await inodes.inside(directory)
    assert tree is not inodes.root.tree
    assert asked == ["root"]


async def test_a_file_is_not_a_directory() -> None:
    tree = DictTree()
    tree.add_file("file")
    inodes = await table(tree)
    file = await looked_up(inodes, "file")

    with pytest.raises(FileError) as failed:
        inodes.directory(file.number)

    assert failed.value.errno == errno.ENOTDIR


Step = tuple[str, str, str]
NAMES = st.sampled_from(["a", "b", "a/c", "a/d", "b/c"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["look", "remove", "move"]), NAMES, NAMES), max_size=40))
def test_whatever_happens_all_is_gone_once_all_is_forgotten(steps: Sequence[Step]) -> None:
    import trio

    async def play() -> None:
        tree = DictTree()
        for name in ("a/c", "a/d", "b/c"):
            tree.add_file(name)
        inodes = await table(tree)
        told: list[Inode] = []
        for verb, path, other in steps:
            try:
                inode = await looked_up(inodes, path)
            except FileError:
                continue
            while inode.parent is not None and inode is not inodes.root:
                told.append(inode)
                inode = inode.parent
            above, _, name = path.rpartition("/")
            place = await looked_up_quietly(inodes, above)
            if verb == "remove":
                inodes.removed(place, name.encode())
            if verb == "move" and not other.startswith(path):
                new_above, _, new_name = other.rpartition("/")
                new_place = await looked_up_quietly(inodes, new_above)
                inodes.renamed(place, name.encode(), new_place, new_name.encode())
        for inode in told:
            inodes.forget(inode.number, 1)
        assert len(inodes) == 1
        assert not inodes.root.children

    async def looked_up_quietly(inodes: Inodes, path: str) -> Directory:
        found = inodes.root.children.get(path.encode()) if path else inodes.root
        return found if isinstance(found, Directory) else inodes.root

    trio.run(play)


async def test_a_name_that_is_only_listed_has_the_number_that_it_is_looked_up_with() -> None:
    tree = DictTree()
    tree.add_file("file")
    inodes = await table(tree)

    listed = inodes.number(inodes.root, b"file")
    file = await looked_up(inodes, "file")

    assert file.number == listed == inodes.number(inodes.root, b"file")


async def test_a_new_file_under_the_name_of_one_that_is_still_open_has_another_number() -> None:
    tree = DictTree()
    tree.add_file("file")
    inodes = await table(tree)
    old = await looked_up(inodes, "file")
    old.opened = Opened()
    inodes.removed(inodes.root, b"file")

    new = await looked_up(inodes, "file")

    assert new is not old
    assert new.number != old.number
    assert inodes[old.number] is old
    assert inodes.number(inodes.root, b"file") == new.number


async def test_a_name_that_is_only_listed_has_no_number_of_another_file() -> None:
    tree = DictTree()
    tree.add_file("file")
    inodes = await table(tree)
    moved = await looked_up(inodes, "file")
    inodes.renamed(inodes.root, b"file", inodes.root, b"kept")

    listed = inodes.number(inodes.root, b"file")

    assert listed != moved.number
    assert (await looked_up(inodes, "file")).number == listed

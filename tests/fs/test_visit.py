"""Everything below a directory is seen once, and what is broken harms only itself."""

import errno

import pytest
import trio
from support.dict_tree import DictTree

from backgate.fs.root_tree import RootTree
from backgate.fs.subtree import subtree
from backgate.fs.tree import Entry, is_writable
from backgate.fs.visit import CONFINED, settled, visit
from backgate.fs.walk import Place, resolve
from backgate.gateway.errors import BackgateError, Damaged, FileError, Unreachable


class Visit:
    """What one visit saw, and what it could not see."""

    def __init__(self, *left_out: bytes) -> None:
        self.seen: list[bytes] = []
        self.complaints: dict[bytes, BackgateError] = {}
        self._left_out = left_out

    async def see(self, path: bytes, _place: Place, entry: Entry) -> bool:
        await trio.lowlevel.checkpoint()
        self.seen.append(path)
        return entry.name not in self._left_out

    def complain(self, path: bytes, error: BackgateError) -> None:
        self.complaints[path] = error

    async def below(self, tree: DictTree | RootTree) -> "Visit":
        await visit((tree, await tree.root()), self.see, self.complain)
        return self


def tree_of(*paths: str) -> DictTree:
    tree = DictTree()
    for path in paths:
        tree.add_file(path)
    return tree


async def test_a_directory_is_seen_before_what_it_holds() -> None:
    visited = await Visit().below(tree_of("b/c/d", "a", "b/e"))

    assert visited.seen == [b"a", b"b", b"b/c", b"b/e", b"b/c/d"]


async def test_what_is_left_out_is_not_entered() -> None:
    visited = await Visit(b"b").below(tree_of("b/c/d", "a/b/c"))

    assert visited.seen == [b"a", b"b", b"a/b"]


async def test_trees_that_continue_in_one_another_are_one() -> None:
    top = RootTree({b"left": tree_of("x"), b"right": tree_of("y/z")})

    visited = await Visit().below(top)

    assert visited.seen == [b"left", b"right", b"left/x", b"right/y", b"right/y/z"]


@pytest.mark.parametrize("error", [Damaged("pack", 1, "MAC"), FileError(errno.EIO, b"b")])
async def test_a_broken_directory_is_complained_of_and_passed_over(error: BackgateError) -> None:
    tree = tree_of("a/x", "b/y", "c/z")

    async def hinder(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if (verb, name) == ("children", b"b"):
            raise error

    tree.hinder = hinder
    visited = await Visit().below(tree)

    assert isinstance(error, CONFINED)
    assert visited.complaints == {b"b": error}
    assert visited.seen == [b"a", b"b", b"c", b"a/x", b"c/z"]


async def test_a_store_that_cannot_be_asked_ends_the_visit() -> None:
    tree = tree_of("a")

    async def hinder(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "children":
            raise Unreachable("gone")

    tree.hinder = hinder
    with pytest.raises(Unreachable):
        await Visit().below(tree)


async def test_directories_without_end_are_given_up() -> None:
    tree = tree_of("a")
    tree.top.children[b"d"] = tree.top

    visited = await Visit().below(tree)

    assert len(visited.complaints) == 1
    assert "directories in one another" in str(next(iter(visited.complaints.values())))


async def test_a_name_that_leads_elsewhere_is_complained_of() -> None:
    tree = tree_of("a")
    tree.top.children[b".."] = tree.top

    visited = await Visit().below(tree)

    assert "cannot be a file's name" in str(visited.complaints[b""])


async def test_only_provisional_attributes_are_asked_again() -> None:
    tree = tree_of("a")
    root = await tree.root()
    entry = await tree.child(root, b"a")
    asked: list[str] = []
    tree.happened = lambda verb, _name: asked.append(verb)

    known = await settled(tree, root, entry)
    other = await settled(tree, root, Entry(name=b"a", mode=0, is_settled=False))

    assert known is entry
    assert other == entry
    assert asked == ["child"]


async def test_a_directory_is_a_tree_of_its_own_and_as_writable() -> None:
    tree = tree_of("a/b/c")
    below = subtree(*await resolve(tree, b"a/b"))

    root = await below.root()

    assert root.name == b""
    assert [entry.name for entry in (await below.children(root)).entries] == [b"c"]
    assert is_writable(below)

"""Paths over trees that continue in one another."""

import errno
import stat

import pytest
from support.dict_tree import DictTree, Node

from backgate.fs.root_tree import RootTree
from backgate.fs.tree import Tree
from backgate.fs.walk import resolve
from backgate.gateway.errors import FileError


def link(target: bytes) -> Node:
    return Node(stat.S_IFLNK | 0o777, target=target)


@pytest.fixture
def tree() -> Tree:
    inner = DictTree()
    inner.add_file("2026/etc/hosts", b"hosts")
    inner.add("latest", link(b"2026"))
    inner.add("2026/up", link(b"../../objects/file"))
    inner.add("absolute", link(b"/etc/hosts"))
    inner.add("one", link(b"two"))
    inner.add("two", link(b"one"))
    objects = DictTree()
    objects.add_file("file", b"object")
    return RootTree({b"backups": inner, b"objects": objects})


async def test_the_empty_path_is_the_root(tree: Tree) -> None:
    found, entry = await resolve(tree, b"")

    assert found is tree
    assert entry.is_directory


async def test_a_path_goes_on_in_the_tree_of_a_junction(tree: Tree) -> None:
    _, entry = await resolve(tree, b"backups/2026/etc/hosts")

    assert (entry.name, entry.size) == (b"hosts", 5)


async def test_a_junction_at_the_end_is_entered(tree: Tree) -> None:
    found, entry = await resolve(tree, b"/backups/")

    assert entry.name == b""
    assert (await found.child(entry, b"2026")).is_directory


async def test_symlinks_are_followed_across_junctions(tree: Tree) -> None:
    _, hosts = await resolve(tree, b"backups/latest/etc/hosts")
    _, other = await resolve(tree, b"backups/latest/up")

    assert hosts.name == b"hosts"
    assert other.name == b"file"


async def test_the_last_symlink_is_followed_only_when_asked(tree: Tree) -> None:
    _, followed = await resolve(tree, b"backups/latest")
    _, link = await resolve(tree, b"backups/latest", follow=False)

    assert followed.is_directory
    assert link.is_symlink


async def test_dots_stay_in_the_tree(tree: Tree) -> None:
    _, entry = await resolve(tree, b"backups/../../objects/./file")

    assert entry.name == b"file"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"backups/absent", errno.ENOENT),
        (b"backups/2026/etc/hosts/below", errno.ENOTDIR),
        (b"backups/2026/etc/hosts/..", errno.ENOTDIR),
        (b"backups/one", errno.ELOOP),
        (b"backups/absolute", errno.ENOENT),
    ],
)
async def test_what_does_not_lead_anywhere_says_why(tree: Tree, path: bytes, code: int) -> None:
    with pytest.raises(FileError) as failed:
        await resolve(tree, path)

    assert failed.value.errno == code

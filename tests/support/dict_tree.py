"""A writable tree in memory: simple enough to be the model that the FUSE edge is tested with."""

import errno
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import count

import trio

from backgate.fs.tree import Changes, Children, Entry, Space
from backgate.gateway.errors import FileError
from backgate.gateway.source import Data

PAGE = 1000  # entries
SPACE = Space(total=2**40, free=2**39)
_numbers = count(1)
_clock = count(1_700_000_000_000_000_000, 1_000_000)  # nanoseconds; every change has its own time


async def _nothing(verb: str, name: bytes) -> None:
    await trio.lowlevel.checkpoint()


@dataclass(eq=False, slots=True)
class Node:
    """A file, directory or symlink."""

    mode: int
    uid: int = 0
    gid: int = 0
    data: bytearray = field(default_factory=bytearray)
    children: dict[bytes, "Node"] = field(default_factory=dict)
    target: bytes | None = None
    mtime_ns: int = field(default_factory=lambda: next(_clock))
    atime_ns: int | None = None
    nlink: int = 1
    number: int = field(default_factory=lambda: next(_numbers))
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    def entry(self, name: bytes) -> Entry:
        return Entry(
            name=name,
            mode=self.mode,
            size=len(self.target) if self.target is not None else len(self.data),
            uid=self.uid,
            gid=self.gid,
            mtime_ns=self.mtime_ns,
            atime_ns=self.atime_ns,
            nlink=self.nlink,
            target=self.target,
            identity=self.number if self.nlink > 1 and not stat.S_ISDIR(self.mode) else None,
            node=self,
            has_xattrs=bool(self.xattrs),
        )

    def change(self, changes: Changes) -> None:
        if changes.mode is not None:
            self.mode = stat.S_IFMT(self.mode) | changes.mode
        for name in ("uid", "gid", "mtime_ns", "atime_ns"):
            if getattr(changes, name) is not None:
                setattr(self, name, getattr(changes, name))
        if changes.size is not None:
            del self.data[changes.size :]
            self.data.extend(bytes(changes.size - len(self.data)))
            if changes.mtime_ns is None:
                self.mtime_ns = next(_clock)


class DictTree:
    """`WritableTree` over dicts.

    Before each call, `happened` is called with the verb and the name, and `hinder` awaited with
    them; it may wait, or raise what the tree is to raise.
    """

    is_immutable = False
    is_mirror = False

    def __init__(self, top: Node | None = None) -> None:
        self.top = top or Node(stat.S_IFDIR | 0o755)
        self.happened: Callable[[str, bytes], None] = lambda verb, name: None
        self.hinder: Callable[[str, bytes], Awaitable[None]] = _nothing

    async def root(self) -> Entry:
        await self.note("root", b"")
        return self.top.entry(b"")

    async def child(self, directory: Entry, name: bytes) -> Entry:
        await self.note("child", name)
        return self._child(directory, name).entry(name)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        await self.note("children", directory.name)
        above = cursor or b""
        names = nsmallest(PAGE + 1, (name for name in directory.node.children if name > above))
        page = names[:PAGE]
        entries = [directory.node.children[name].entry(name) for name in page]
        return Children(entries, page[-1] if len(names) > PAGE else None)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator["DictFile"]:
        await self.note("open", file.name)
        try:
            yield DictFile(self, file.node, file.name)
        finally:
            with trio.CancelScope(shield=True):
                await self.note("closed", file.name)

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await self.note("xattrs", entry.name)
        xattrs: dict[bytes, bytes] = entry.node.xattrs
        return xattrs

    async def create(
        self, directory: Entry, name: bytes, *, mode: int, uid: int, gid: int, exclusive: bool
    ) -> tuple[Entry, "DictFile"]:
        await self.note("create", name)
        node = directory.node.children.get(name)
        if node is not None and exclusive:
            raise FileError(errno.EEXIST, name)
        if node is not None:
            return node.entry(name), DictFile(self, node, name)
        node = Node(stat.S_IFREG | mode, uid, gid)
        directory.node.children[name] = node
        return node.entry(name), DictFile(self, node, name)

    async def open_for_writing(self, file: Entry, *, truncate: bool) -> "DictFile":
        await self.note("open_for_writing", file.name)
        if truncate:
            file.node.change(Changes(size=0))
        return DictFile(self, file.node, file.name)

    async def make_directory(
        self, directory: Entry, name: bytes, *, mode: int, uid: int, gid: int
    ) -> Entry:
        await self.note("make_directory", name)
        return self._put(directory, name, Node(stat.S_IFDIR | mode, uid, gid))

    async def make_symlink(
        self, directory: Entry, name: bytes, target: bytes, *, uid: int, gid: int
    ) -> Entry:
        await self.note("make_symlink", name)
        return self._put(directory, name, Node(stat.S_IFLNK | 0o777, uid, gid, target=target))

    async def make_node(
        self, directory: Entry, name: bytes, *, mode: int, rdev: int, uid: int, gid: int
    ) -> Entry:
        await self.note("make_node", name)
        raise FileError(errno.EPERM, name)

    async def link(self, file: Entry, directory: Entry, name: bytes) -> Entry:
        await self.note("link", name)
        raise FileError(errno.EPERM, name)

    async def remove_directory(self, directory: Entry, name: bytes) -> None:
        await self.note("remove_directory", name)
        if self._child(directory, name).children:
            raise FileError(errno.ENOTEMPTY, name)
        del directory.node.children[name]

    async def unlink(self, directory: Entry, name: bytes) -> None:
        await self.note("unlink", name)
        self._child(directory, name).nlink -= 1
        del directory.node.children[name]

    async def rename(
        self,
        directory: Entry,
        name: bytes,
        new_directory: Entry,
        new_name: bytes,
        *,
        no_replace: bool = False,
    ) -> None:
        await self.note("rename", name)
        node, there = self._child(directory, name), new_directory.node.children.get(new_name)
        if there is not None and no_replace:
            raise FileError(errno.EEXIST, new_name)
        if there is not None and there.children:
            raise FileError(errno.ENOTEMPTY, new_name)
        new_directory.node.children[new_name] = node
        if there is not node:
            del directory.node.children[name]

    async def change(self, entry: Entry, changes: Changes) -> Entry:
        await self.note("change", entry.name)
        entry.node.change(changes)
        changed: Entry = entry.node.entry(entry.name)
        return changed

    async def synchronize(self, directory: Entry) -> None:
        await self.note("synchronize", directory.name)

    async def space(self) -> Space:
        return SPACE

    def add(self, path: str, node: Node) -> Node:
        """Put `node` at `path`, making the directories above it."""
        *above, name = path.encode().split(b"/")
        directory = self.top
        for part in above:
            directory = directory.children.setdefault(part, Node(stat.S_IFDIR | 0o755))
        directory.children[name] = node
        return node

    def add_file(self, path: str, data: bytes = b"", mode: int = 0o644) -> Node:
        """Put a file of `data` at `path`."""
        return self.add(path, Node(stat.S_IFREG | mode, data=bytearray(data)))

    def _put(self, directory: Entry, name: bytes, node: Node) -> Entry:
        if name in directory.node.children:
            raise FileError(errno.EEXIST, name)
        directory.node.children[name] = node
        return node.entry(name)

    def _child(self, directory: Entry, name: bytes) -> Node:
        children: dict[bytes, Node] = directory.node.children
        if name not in children:
            raise FileError(errno.ENOENT, name)
        return children[name]

    async def note(self, verb: str, name: bytes) -> None:
        """Tell of a call, and let it be hindered."""
        self.happened(verb, name)
        await self.hinder(verb, name)


class FrozenTree:
    """The reading side of a `DictTree`, as a tree that never changes."""

    is_immutable = True

    def __init__(self, tree: DictTree) -> None:
        self.root, self.child, self.children = tree.root, tree.child, tree.children
        self.open, self.xattrs = tree.open, tree.xattrs


class DictFile:
    """`WritableFile`, and `Source`, over a node."""

    def __init__(self, tree: DictTree, node: Node, name: bytes) -> None:
        self._tree, self._node, self._name = tree, node, name

    @property
    def size(self) -> int:
        return len(self._node.data)

    @property
    def entry(self) -> Entry:
        return self._node.entry(self._name)

    async def read_at(self, offset: int, length: int) -> Data:
        await self._tree.note("read", self._name)
        return bytes(self._node.data[offset : offset + length])

    async def write_at(self, offset: int, data: bytes | memoryview) -> None:
        await self._tree.note("write", self._name)
        self._node.data.extend(bytes(max(0, offset - self.size)))
        self._node.data[offset : offset + len(data)] = data
        self._node.mtime_ns = next(_clock)

    async def change(self, changes: Changes) -> Entry:
        await self._tree.note("change", self._name)
        self._node.change(changes)
        return self.entry

    async def synchronize(self) -> None:
        await self._tree.note("fsync", self._name)

    async def flush(self) -> None:
        await self._tree.note("flush", self._name)

    async def release(self) -> None:
        await self._tree.note("release", self._name)

"""The one currency of showing: a tree of entries, with root, children, child and open.

A backup, a file system inside a disk, the catalogue of all backups, the writable repository: each
is a
`Tree`. Trees nest: an entry with a `junction` is a directory that continues in another tree at
its root.
"""

import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, cast

from msgspec import Struct
from msgspec.structs import replace

from backgate.gateway.source import Source


class Entry(Struct, frozen=True, kw_only=True):
    """One name in a tree, with what stat(2) tells of it."""

    name: bytes
    mode: int  # type and permission bits, as st_mode
    size: int = 0  # bytes
    allocated: int | None = None  # bytes stored, for st_blocks; None: as `size`
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0  # nanoseconds since 1970; may be negative
    atime_ns: int | None = None  # None: as mtime_ns
    ctime_ns: int | None = None  # None: as mtime_ns
    nlink: int = 1
    rdev: int = 0
    target: bytes | None = None  # of a symlink
    identity: object = (
        None  # hashable; entries of one tree that share it are one inode (hard links)
    )
    node: Any = None  # what the tree itself needs to find this entry again; nobody else looks at it
    junction: "Tree | None" = None  # this directory continues at that tree's root
    has_xattrs: bool = False
    is_settled: bool = True  # False: attributes are provisional, ask `child` before relying on them

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    def named(self, name: bytes) -> "Entry":
        """Return the same entry under another name."""
        return replace(self, name=name)


@dataclass(frozen=True, slots=True)
class Children:
    """One page of a directory: entries, and the cursor for the next page (None: this was the
    last).
    """

    entries: Sequence[Entry]
    cursor: bytes | None


FEW = 100  # names first told alone; who looks at them one by one gets attributes with the next ones


@dataclass(frozen=True, slots=True)
class Names:
    """One page of a directory for who wants no attributes.

    In place of an entry may be the name of a regular file, which has this name alone, and one that
    the kernel takes.
    """

    entries: Sequence[Entry | bytes]
    cursor: bytes | None  # as in `Children`; one is good for the other


class Tree(Protocol):
    """Directories and files, for reading. Any number of tasks may call it at once.

    Errors of all methods: `FileError` (ENOENT, ENOTDIR, ...) is a sure answer; `StoreError` means
    that
    nobody could be asked; `Damaged` that what was found does not hold together.
    """

    @property
    def is_immutable(self) -> bool:
        """True when entries never change: the kernel may keep what it is told."""

    async def root(self) -> Entry:
        """Return the directory at the top; its name is empty."""

    async def child(self, directory: Entry, name: bytes) -> Entry:
        """Return the entry `name` of `directory`; `FileError(ENOENT)` when there surely is none."""

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        """Return a page of `directory`, from the start or from where `cursor` left off.

        The order is stable and `.` and `..` are not among them. A name created or removed
        meanwhile may
        or may not appear; all others appear exactly once. A directory is never shown short: an
        error is
        raised instead.
        """

    def open(self, file: Entry) -> AbstractAsyncContextManager[Source]:
        """Open a regular file for reading; the source is valid until the context is left."""

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        """Return the extended attributes, names with their namespace (`user.x`)."""


class NamingTree(Tree, Protocol):
    """A tree that can tell names without attributes, and quicker."""

    async def names(self, directory: Entry, cursor: bytes | None = None) -> Names:
        """Return a page as `children` does, in the same order; the first of `FEW`."""


class RenewableTree(Tree, Protocol):
    """A tree of which something may have been kept from being opened by what passes."""

    async def is_outdated(self) -> bool:
        """True when it should be opened anew: there is more of it by now. Raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a setattr changes; None leaves a field alone."""

    mode: int | None = None  # permission bits
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    size: int | None = None  # bytes: truncate
    xattrs: Mapping[bytes, bytes | None] = field(default_factory=dict)  # None removes one

    @property
    def sets_attributes(self) -> bool:
        """True when anything but the size changes."""
        fields = (self.mode, self.uid, self.gid, self.mtime_ns, self.atime_ns)
        return bool(self.xattrs) or any(field is not None for field in fields)


@dataclass(frozen=True, slots=True)
class Space:
    """What statfs tells."""

    total: int  # bytes
    free: int  # bytes


class WritableFile(Source, Protocol):
    """A file open for writing; its size changes. Shared by all who have the same file open for
    writing.
    """

    @property
    def entry(self) -> Entry:
        """The file as stat(2) should show it now."""

    async def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset`, growing the file; it can be read back at once."""

    async def change(self, changes: Changes) -> Entry:
        """Truncate, or change attributes, of the open file."""

    async def synchronize(self) -> None:
        """fsync(2): return once bytes and journal are on the gateway's disk."""

    async def flush(self) -> None:
        """close(2): return once the object is in the store, or at once for a staged name.

        A flush with nothing new does nothing. An error leaves the bytes in the spool, to be
        retried.
        """

    async def release(self) -> None:
        """The last descriptor of one open is gone; no error can be reported any more."""


class WritableTree(Tree, Protocol):
    """A tree that can be changed. A change is stored when its method returns, unless it says
    otherwise.
    """

    is_mirror: bool  # it keeps extended attributes, ACLs, devices, and links as copies

    async def create(
        self, directory: Entry, name: bytes, *, mode: int, uid: int, gid: int, exclusive: bool
    ) -> tuple[Entry, WritableFile]:
        """Create and open an empty file, or open one that exists as it is.

        With `exclusive`, `FileError(EEXIST)` when it exists.
        """

    async def open_for_writing(self, file: Entry, *, truncate: bool) -> WritableFile:
        """Open an existing file; with `truncate`, from nothing."""

    async def make_directory(
        self, directory: Entry, name: bytes, *, mode: int, uid: int, gid: int
    ) -> Entry:
        """Create an empty directory."""

    async def make_symlink(
        self, directory: Entry, name: bytes, target: bytes, *, uid: int, gid: int
    ) -> Entry:
        """Create a symlink."""

    async def make_node(
        self, directory: Entry, name: bytes, *, mode: int, rdev: int, uid: int, gid: int
    ) -> Entry:
        """Create a fifo, socket or device, in a mirror."""

    async def link(self, file: Entry, directory: Entry, name: bytes) -> Entry:
        """Give a file, symlink or device a copy under another name, in a mirror."""

    async def remove_directory(self, directory: Entry, name: bytes) -> None:
        """Remove an empty directory; `FileError(ENOTEMPTY)`."""

    async def unlink(self, directory: Entry, name: bytes) -> None:
        """Remove a file or symlink; who has it open goes on reading and writing."""

    async def rename(
        self,
        directory: Entry,
        name: bytes,
        new_directory: Entry,
        new_name: bytes,
        *,
        no_replace: bool = False,
    ) -> None:
        """Rename; publishes a staged file. A directory onto a non-empty one is
        `FileError(ENOTEMPTY)`.
        """

    async def change(self, entry: Entry, changes: Changes) -> Entry:
        """Change attributes of a file or directory that nobody has open, and return it as it is
        now.
        """

    async def synchronize(self, directory: Entry) -> None:
        """fsync(2) of a directory: all that was acknowledged before is durable."""

    async def space(self) -> Space:
        """What statfs should say."""


def tells_names(tree: Tree) -> TypeGuard[NamingTree]:
    """True when `tree` is a `NamingTree`."""
    return hasattr(tree, "names")


def is_renewable(tree: Tree) -> TypeGuard[RenewableTree]:
    """True when `tree` is a `RenewableTree`."""
    return hasattr(tree, "is_outdated")


def is_writable(tree: Tree) -> bool:
    """True when `tree` is a `WritableTree`."""
    return hasattr(tree, "open_for_writing")


def keeps_xattrs(tree: Tree) -> bool:
    """True when anything in `tree` may have extended attributes."""
    return not is_writable(tree) or cast(WritableTree, tree).is_mirror


DIRECTORY_MODE = stat.S_IFDIR | 0o755
FILE_MODE = stat.S_IFREG | 0o644
OpenTree = Callable[[], AbstractAsyncContextManager[Tree]]

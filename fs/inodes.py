"""The inodes that the kernel knows, each with the names that lead to it.

A record lives from the first lookup to the kernel's last forget; a name that was only listed needs
none, for its number is made of the name. A name is looked up again in its
tree whenever what was learnt of it may have changed, so a renamed directory needs no more than a
new name.
"""

import errno
import stat
from collections.abc import Iterator
from itertools import islice

from msgspec.structs import replace

from backgate.fs.tree import Entry, Tree, WritableFile
from backgate.fs.walk import enter
from backgate.gateway.errors import FileError, NotFound

ROOT = 1  # FUSE_ROOT_ID
HASHED = 1 << 60  # from here on numbers are made of names; below they are counted
BELOW_HASHED = HASHED - 1
SECOND = 1 << 61  # in the number of a file whose name another had before, which lives on
ROUNDS = 10  # times as many inodes are looked at as are wanted, to find those long unused


class Inode:
    """One file, directory or symlink that the kernel has a number for."""

    __slots__ = (
        "_cached",
        "_links",
        "entry",
        "is_recent",
        "lookups",
        "name",
        "number",
        "opened",
        "parent",
        "tree",
    )

    def __init__(self, number: int, tree: Tree, parent: "Directory | None", entry: Entry) -> None:
        self.number, self.tree, self.parent = number, tree, parent
        self.name = entry.name
        self.entry = entry  # as it was last seen
        self.lookups = 0  # how often the kernel was told of it, less what it forgot
        self.is_recent = True  # it was told of since `oldest` last came by
        self.opened: Opened | None = None
        self._links: list[tuple[Directory, bytes]] | None = None  # its further names
        self._cached: tuple[int, int] | None = None  # size, mtime of the kernel's pages

    @property
    def is_nameless(self) -> bool:
        """True once its last name was removed; only who has it open can reach it."""
        return self.parent is None and self.number != ROOT

    @property
    def place(self) -> "tuple[Directory | None, bytes]":
        """The name by which a tree finds it: what changes meanwhile may be another's by now."""
        return self.parent, self.name

    @property
    def file(self) -> WritableFile | None:
        """The file as it is open for writing, if anybody has it so."""
        return self.opened.file if self.opened else None

    def is_as_cached(self) -> bool:
        """True when the kernel's pages are of the file as it is; later pages are taken to be so."""
        before, now = self._cached, self._stamp()
        self._cached = now
        return before == now

    def note_cached(self) -> None:
        """Note that the kernel has pages of the file as it is: they came through the kernel."""
        self._cached = self._stamp()

    def _stamp(self) -> tuple[int, int]:
        entry = self.file.entry if self.file is not None else self.entry
        return entry.size, entry.mtime_ns

    def names(self) -> Iterator["tuple[Directory, bytes]"]:
        """Return every name by which the kernel knows it."""
        if self.parent is not None:
            yield self.parent, self.name
        yield from self._links or ()

    def add_name(self, directory: "Directory", name: bytes) -> None:
        """Note one more name of the same file; the first one if it had none."""
        if self.parent is None:
            self.parent, self.name = directory, name
        else:
            self._links = [*(self._links or ()), (directory, name)]

    def remove_name(self, directory: "Directory", name: bytes) -> None:
        """Forget one of its names."""
        left = [one for one in self.names() if one != (directory, name)]
        self.parent, self.name = left[0] if left else (None, name)
        self._links = left[1:] or None


class Directory(Inode):
    """An inode that may have children."""

    __slots__ = ("children", "inside")

    def __init__(self, number: int, tree: Tree, parent: "Directory | None", entry: Entry) -> None:
        super().__init__(number, tree, parent, entry)
        self.children: dict[bytes, Inode] = {}  # those that the kernel knows
        self.inside: tuple[Tree, Entry] | None = None  # where its children are looked up


class Opened:
    """What is known of an inode while somebody has it open."""

    __slots__ = ("closed", "handles", "version", "writing")

    def __init__(self) -> None:
        self.handles = 0
        self.writing: list[WritableFile] = []  # one for each open for writing
        self.closed: list[WritableFile] = []  # were so; kept for those who read a nameless file
        self.version = 0  # grows with each change made through this mount

    @property
    def file(self) -> WritableFile | None:
        """The bytes and attributes as they are now, if they may differ from the tree's."""
        files = self.writing or self.closed
        return files[-1] if files else None


class Inodes:
    """The table of all inodes, by number and by name."""

    def __init__(self, tree: Tree, root: Entry) -> None:
        self.root = Directory(ROOT, tree, None, root)
        self._numbers: dict[int, Inode] = {ROOT: self.root}
        self._linked: dict[tuple[int, object], Inode] = {}  # by tree and identity: hard links
        self._last_number = ROOT
        self.forgotten = 0  # records that are gone

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> Inode:
        inode = self._numbers.get(number)
        if inode is None:
            raise FileError(errno.ESTALE, f"inode {number}")
        return inode

    def directory(self, number: int) -> Directory:
        """Return the directory with `number`; ENOTDIR when it is something else."""
        inode = self[number]
        if not isinstance(inode, Directory):
            raise FileError(errno.ENOTDIR, inode.name)
        return inode

    def number(self, directory: Directory, name: bytes) -> int:
        """Return the number of what has `name`, which it will have too once it is looked up."""
        inode = directory.children.get(name) if directory.children else None
        if inode is None:
            number = HASHED | (hash((directory.number, name)) & BELOW_HASHED)
            return number | SECOND if number in self._numbers else number
        return inode.number

    def learned(self, directory: Directory, tree: Tree, entry: Entry) -> Inode:
        """Return the inode of `entry`, found in `directory`, for the kernel to hear of again."""
        inode = directory.children.get(entry.name)
        if inode is not None and not _is_same(inode, entry):
            self.removed(directory, entry.name)
            inode = None
        if inode is None:
            inode = self._named(directory, tree, entry)
        inode.entry = entry
        inode.lookups += 1
        inode.is_recent = True
        if isinstance(inode, Directory) and entry.junction is None:
            inode.inside = tree, entry
        return inode

    def forget(self, number: int, lookups: int) -> None:
        """Take back what the kernel was told `lookups` times, and with the last the record."""
        inode = self._numbers.get(number)
        if inode is not None:
            inode.lookups -= lookups
            self._drop_unused(inode)

    def renamed(
        self, directory: Directory, name: bytes, new_directory: Directory, new_name: bytes
    ) -> None:
        """Note that a name has become another, and that what had the new name lost it."""
        moved = directory.children.get(name)
        if moved is not None and moved is new_directory.children.get(new_name):
            return  # two names of one file: rename(2) does nothing
        self.removed(new_directory, new_name)
        if moved is None:
            return
        del directory.children[name]
        moved.remove_name(directory, name)
        moved.add_name(new_directory, new_name)
        new_directory.children[new_name] = moved
        if isinstance(moved, Directory):
            _look_up_again(moved)
        self._drop_unused(directory)

    def removed(self, directory: Directory, name: bytes) -> None:
        """Note that `name` is gone; its inode lives on for those who have it open."""
        inode = directory.children.pop(name, None)
        if inode is None:
            return
        inode.remove_name(directory, name)
        if inode.is_nameless:
            self._unlink_identity(inode)
            inode.entry = replace(inode.entry, nlink=0)
        self._drop_unused(inode)
        self._drop_unused(directory)

    def oldest(self, count: int) -> list[tuple[int, bytes]]:
        """Return directory and name of some `count` files that the kernel did not need for long.

        An inode has to come up twice without having been told of between: so a name that is in use
        stays, at the cost of one bit.
        """
        names: list[tuple[int, bytes]] = []
        for inode in list(islice(self._numbers.values(), ROUNDS * count)):
            del self._numbers[inode.number]
            self._numbers[inode.number] = inode
            if inode.is_recent:
                inode.is_recent = False
            elif inode.opened is None and not isinstance(inode, Directory):
                names += [(directory.number, name) for directory, name in inode.names()]
            if len(names) >= count:
                break
        return names

    async def entry(self, inode: Inode) -> Entry:
        """Return what stat(2) should show of `inode` now.

        Raises what the tree raises; ENOENT when its name is gone.
        """
        if inode.file is not None:
            return inode.file.entry
        if inode.is_nameless or (inode.tree.is_immutable and inode.entry.is_settled):
            return inode.entry
        return await self._look_up(inode)

    async def inside(self, directory: Directory) -> tuple[Tree, Entry]:
        """Return the tree and the entry to look up the children of `directory` with."""
        if directory.inside is None:
            directory.inside = await enter(directory.tree, await self.entry(directory))
        return directory.inside

    async def _look_up(self, inode: Inode) -> Entry:
        while True:
            parent, name = inode.parent, inode.name
            if parent is None:
                if inode is not self.root:
                    raise FileError(errno.ENOENT, name)
                inode.entry = await inode.tree.root()
                return inode.entry
            tree, directory = await self.inside(parent)
            try:
                entry = await tree.child(directory, name)
            except (FileError, NotFound):
                if (inode.parent, inode.name) == (parent, name):
                    raise
                continue  # it was renamed meanwhile
            if (inode.parent, inode.name) == (parent, name):
                inode.entry = entry
            return entry

    def _named(self, directory: Directory, tree: Tree, entry: Entry) -> Inode:
        shared = None if entry.identity is None else (id(tree), entry.identity)
        inode = self._linked.get(shared) if shared is not None else None
        if inode is None:
            kind = Directory if entry.is_directory else Inode
            inode = kind(self._free_number(directory, tree, entry), tree, directory, entry)
            self._numbers[inode.number] = inode
            if shared is not None and not entry.is_directory:
                self._linked[shared] = inode
        else:
            inode.add_name(directory, entry.name)
        directory.children[entry.name] = inode
        return inode

    def _free_number(self, directory: Directory, tree: Tree, entry: Entry) -> int:
        made_of: object = (directory.number, entry.name)
        if entry.identity is not None and entry.nlink > 1 and not entry.is_directory:
            # Whoever copies hard links knows them by this, also when the first was forgotten since.
            made_of = (tree, entry.identity)
        number = HASHED | (hash(made_of) & BELOW_HASHED)
        if number in self._numbers:
            number |= SECOND
        if number in self._numbers:  # and so did a third
            self._last_number += 1
            number = self._last_number
        return number

    def _drop_unused(self, inode: Inode) -> None:
        used: object = inode.lookups > 0 or inode.opened or inode is self.root
        if used or (isinstance(inode, Directory) and inode.children):
            return
        if self._numbers.pop(inode.number, None) is None:
            return
        self.forgotten += 1
        self._unlink_identity(inode)
        for directory, name in list(inode.names()):
            directory.children.pop(name, None)
            self._drop_unused(directory)

    def _unlink_identity(self, inode: Inode) -> None:
        if inode.entry.identity is not None:
            shared = (id(inode.tree), inode.entry.identity)
            if self._linked.get(shared) is inode:
                del self._linked[shared]


def _is_same(inode: Inode, entry: Entry) -> bool:
    known = inode.entry
    return (
        stat.S_IFMT(known.mode) == stat.S_IFMT(entry.mode)
        and known.identity == entry.identity
        and known.junction == entry.junction
    )


def _look_up_again(directory: Directory) -> None:
    """Forget where children of a renamed directory, and of all below it, were looked up."""
    left = [directory]
    while left:
        directory = left.pop()
        directory.inside = None
        left += [child for child in directory.children.values() if isinstance(child, Directory)]

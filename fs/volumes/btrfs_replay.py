"""Replay the log trees of btrfs, in memory, over the trees of the last transaction.

A log has the inodes that were synchronized, whole or as far as they had changed: a small language
for a file system that tells its own recovery what to do, which is done here as it is done there.
All of it is replayed, or nothing: where the kernel would refuse to mount, the last transaction is
shown. What the kernel would make up is left out: a name that is removed does not change times.
"""

import stat
from time import process_time
from typing import Any, NamedTuple

from fs_explorer.filesystems.btrfs.btree import BTrees, Key
from fs_explorer.filesystems.btrfs.super import MIRRORS

from backgate.fs.volumes.btrfs_changed import ChangedTrees
from backgate.fs.volumes.btrfs_data import ALGORITHMS, CHECKSUMS
from backgate.fs.volumes.btrfs_extents import Checksums, Extents
from backgate.fs.volumes.btrfs_log import (
    DIR_INDEX,
    DIR_ITEM,
    EXTENDED_REF,
    EXTENT,
    INODE,
    REF,
    ROOT,
    XATTR,
    Log,
    Logs,
)
from backgate.fs.volumes.btrfs_names import (
    ALLOCATED,
    DIRECTORY,
    GENERATION,
    INODE_SIZE,
    LINKS,
    MODE,
    SIZE,
    Entry,
    Ref,
    Subvolume,
    entries,
    hashed,
    refs,
    with_word,
    word,
)
from backgate.fs.volumes.explorer import translated
from backgate.fs.volumes.limits import raised
from backgate.fs.volumes.replay import CLEAN, DIRTY, JOURNAL, NOT_REPLAYED, STATE, counted
from backgate.gateway.errors import Damaged

SECONDS = 8  # of CPU that a replay may take; some 200,000 items, and less than is waited for it
NO_HOLES = 0x200  # of the incompatible features: no items for holes
_UNKNOWN = f"{NOT_REPLAYED}: only the first superblock tells whether there is a log"
_ROOT_REFERENCES = 216  # where a root item says whether the subvolume is still there, 4 bytes


class Replayed(NamedTuple):
    """The trees as they are after recovery, and what was done."""

    trees: BTrees
    notes: dict[str, str]


def replay_logs(tree: Any) -> Replayed:
    """Return the trees of the file system that the library opened as `tree`, after its recovery.

    Logs that cannot be read, or do not fit, leave the trees as they are, and the notes say why.
    """
    if tree.sb.offset != MIRRORS[0]:
        return Replayed(tree.trees, {STATE: "its first superblock is damaged", JOURNAL: _UNKNOWN})
    if not tree.sb.log_root:
        return Replayed(tree.trees, {STATE: CLEAN})
    try:
        with translated(), raised(cpu=SECONDS):
            trees, logs = ChangedTrees(tree.trees), Logs(tree).of
            stop = process_time() + SECONDS
            for subvolume, log in logs.items():
                _Replay(tree, trees, subvolume, log, stop).run()
    except Damaged as error:
        return Replayed(tree.trees, _unreplayed(error.reason))
    except MemoryError:
        return Replayed(tree.trees, _unreplayed("it takes too much memory"))
    items = counted(sum(len(log.items) for log in logs.values()), "item")
    what = f"replayed: {counted(len(logs), 'log tree')}, {items}"
    return Replayed(trees, {STATE: DIRTY, JOURNAL: what})


def _unreplayed(reason: str) -> dict[str, str]:
    what = f"log tree {NOT_REPLAYED}, up to 30 s of what was synchronized: {reason}"
    return {STATE: DIRTY, JOURNAL: what}


class _Replay:
    """The replay of the log of one subvolume."""

    def __init__(
        self, tree: Any, trees: ChangedTrees, subvolume: int, log: Log, stop: float
    ) -> None:
        sb, transaction = tree.sb, tree.sb.generation + 1
        root = next(tree.trees.iter_range(sb.root, subvolume, ROOT), None)
        if root is None or not word(root[1], _ROOT_REFERENCES, 4):
            raise Damaged("", None, f"there is a log of subvolume {subvolume}, which is not there")
        self._files = Subvolume(trees, tree.subvol_root(subvolume)[0], transaction)
        sums = Subvolume(trees, tree.subvol_root(CHECKSUMS)[0], transaction)
        width = ALGORITHMS[sb.csum_type][0]
        checksums = Checksums(sums, sb.sectorsize, width, sb.nodesize)
        has_holes = not sb.incompat_flags & NO_HOLES
        self._extents = Extents(self._files, log, checksums, sb.sectorsize, has_holes)
        self._log, self._stop = log, stop
        self._recounted: set[int] = set()  # inodes whose links are counted in the end

    def run(self) -> None:
        """Do all of it."""
        logged = [
            (key, item)
            for key, item in self._log.items.items()
            if (key[0], INODE, 0) in self._log.items and self._is_linked(key[0])
        ]
        for kinds in ((INODE,), (DIR_INDEX,), (REF, XATTR, EXTENT)):
            for key, item in logged:
                if key[1] in kinds:
                    self._check_time()
                    self._item(key, item)
        while self._recounted:
            self._check_time()
            self._count_links(self._recounted.pop())

    def _item(self, key: Key, item: bytes) -> None:
        owner, kind, offset = key
        if kind == INODE:
            self._inode(owner, item)
        elif kind == DIR_INDEX:
            self._entry(key, item)
        elif kind == REF:
            self._refs(owner, offset, item)
        elif kind == EXTENT:
            self._extents.place(owner, offset, item)
        else:
            self._files.set(key, item)

    def _is_linked(self, number: int) -> bool:
        """Tell whether an inode had a name; one without is forgotten with all that it had."""
        item = self._log.items[number, INODE, 0]
        if len(item) != INODE_SIZE:
            raise Damaged("", None, f"inode {number} has {len(item)} bytes in the log")
        return word(item, LINKS, 4) > 0

    def _check_time(self) -> None:
        if process_time() > self._stop:
            raise Damaged("", None, f"it takes more than {SECONDS} seconds")

    # Inodes.

    def _inode(self, number: int, item: bytes) -> None:
        kind = stat.S_IFMT(word(item, MODE, 4))
        self._remove_attributes(number)
        if kind == stat.S_IFDIR and self._files.has_inode(number):
            self._remove_names(number)
        self._overwrite(number, item)
        if kind == stat.S_IFREG:
            self._extents.truncate(number, word(self._files.inode(number), SIZE))
        self._recount(number)

    def _overwrite(self, number: int, new: bytes) -> None:
        """Put an inode of the log in its place; its blocks, and a directory's names, come later."""
        is_directory = stat.S_ISDIR(word(new, MODE, 4))
        if not self._files.has_inode(number):
            new = with_word(new, ALLOCATED, 0)
            self._files.set((number, INODE, 0), with_word(new, SIZE, 0) if is_directory else new)
            return
        old = self._files.inode(number)
        if old == new:
            return
        if not word(new, GENERATION):  # it is there to say that there is such an inode
            size = word(new, SIZE)
            if size and stat.S_ISREG(word(new, MODE, 4)) and stat.S_ISREG(word(old, MODE, 4)):
                self._files.set((number, INODE, 0), with_word(old, SIZE, size))
            return
        new = with_word(new, ALLOCATED, word(old, ALLOCATED))
        if is_directory:
            was_one = stat.S_ISDIR(word(old, MODE, 4))
            new = with_word(new, SIZE, word(old, SIZE) if was_one else 0)
        self._files.set((number, INODE, 0), new)

    def _remove_attributes(self, number: int) -> None:
        """Remove the extended attributes that the log does not have."""
        for key, item in list(self._files.items(number, XATTR)):
            kept = [one for one in entries(item) if self._is_logged(number, XATTR, one.name)]
            self._files.set(key, b"".join(one.raw for one in kept))

    def _is_logged(self, number: int, kind: int, name: bytes) -> bool:
        item = self._log.items.get((number, kind, hashed(name)))
        return any(one.name == name for one in entries(item))

    # Names.

    def _remove_names(self, directory: int) -> None:
        """Remove what the log does not have although it has all names of that stretch."""
        gone: dict[int, Entry] = {}
        for first, last in self._log.stretches(directory):
            for key, item in self._files.items(directory, DIR_INDEX, first, last + 1):
                self._check_time()
                entry, logged = _only(item), self._log.items.get(key)
                if logged is None or _only(logged).name != entry.name:
                    gone[key[2]] = entry
        for entry in gone.values():
            self._drop(directory, entry)

    def _drop(self, directory: int, entry: Entry) -> None:
        number = _inode_of(entry)
        self._recount(number)
        self._files.unlink(directory, number, entry.name)

    def _recount(self, number: int) -> None:
        self._files.inode(number)
        self._recounted.add(number)

    def _entry(self, key: Key, item: bytes) -> None:
        """Have a name of a directory, where the inode is there that it leads to."""
        directory, _, index = key
        new = _only(item)
        self._files.inode(directory)
        number = new.target[0]
        is_there = new.target[1] == INODE and self._files.has_inode(number)
        places = (self._by_name(directory, new.name), key)
        same = [place for place in places if self._is_same(directory, place, new, is_there)]
        if len(same) == len(places):
            return
        _inode_of(new)
        if not is_there or new.name in self._logged_names(directory, number):
            return  # it never was, or it comes with the names of the inode
        ref = Ref(index, new.name)
        if self._files.link(directory, number, ref, with_ref=True) and new.kind != DIRECTORY:
            self._recount(number)

    def _is_same(self, directory: int, key: Key, new: Entry, is_there: bool) -> bool:
        """Tell whether a directory has a name as the log has it; else it goes, to make room."""
        old = self._files.entry(key, new.name)
        if old is None:
            return False
        if (old.target, old.kind) == (new.target, new.kind):
            return True
        if is_there:
            self._drop(directory, old)
        return False

    def _refs(self, number: int, directory: int, item: bytes) -> None:
        """Have the names of an inode in one directory, and no others there."""
        if not self._files.has_inode(directory):
            return
        self._files.inode(number)
        if number == directory:  # the top one is its own
            return
        for ref in refs(item):
            if not self._has_name(directory, number, ref):
                self._make_room(directory, number, ref)
                self._files.link(directory, number, ref, with_ref=False)
        self._remove_unlogged(directory, number)
        self._files.set((number, REF, directory), item)

    def _has_name(self, directory: int, number: int, ref: Ref) -> bool:
        by_index = self._files.entry((directory, DIR_INDEX, ref.number), ref.name)
        by_name = self._files.entry(self._by_name(directory, ref.name), ref.name)
        return all(one is not None and one.target[0] == number for one in (by_index, by_name))

    def _make_room(self, directory: int, number: int, ref: Ref) -> None:
        self._remove_unlogged(directory, number)
        for key in ((directory, DIR_INDEX, ref.number), self._by_name(directory, ref.name)):
            entry = self._files.entry(key, ref.name)
            if entry is not None:
                self._drop(directory, entry)

    def _remove_unlogged(self, directory: int, number: int) -> None:
        logged = self._logged_names(directory, number)
        for ref in refs(self._files.get((number, REF, directory))):
            if ref.name not in logged:
                self._files.unlink(directory, number, ref.name)

    def _logged_names(self, directory: int, number: int) -> set[bytes]:
        return {ref.name for ref in refs(self._log.items.get((number, REF, directory)))}

    def _by_name(self, directory: int, name: bytes) -> Key:
        return directory, DIR_ITEM, hashed(name)

    # Links.

    def _count_links(self, number: int) -> None:
        """Have an inode say how many names it has; without any, it and all below it goes."""
        if not self._files.has_inode(number):
            return
        if any(self._files.items(number, EXTENDED_REF)):
            raise Damaged("", None, f"inode {number} has very many names in one directory")
        links = sum(len(refs(item)) for _, item in self._files.items(number, REF))
        inode = self._files.inode(number)
        if not links and stat.S_ISDIR(word(inode, MODE, 4)):
            for _, item in list(self._files.items(number, DIR_INDEX)):
                self._drop(number, _only(item))
        self._files.set((number, INODE, 0), with_word(inode, LINKS, links, 4) if links else None)


def _only(item: bytes) -> Entry:
    found = entries(item)
    if len(found) != 1:
        raise Damaged("", None, f"an item of one name has {len(found)}")
    return found[0]


def _inode_of(entry: Entry) -> int:
    if entry.target[1] != INODE:
        raise Damaged("", None, f"the log changes {entry.name!r}, which is a subvolume")
    return entry.target[0]

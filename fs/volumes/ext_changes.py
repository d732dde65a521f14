"""What the fast commits of an ext4 file system have made of it, one on top of the other."""

from collections.abc import Iterable
from dataclasses import dataclass

from backgate.fs.volumes.fast_commits import CREATE, UNLINK, Change, Mapped, Named, Stored


@dataclass(slots=True)
class Name:
    """What a name in a directory has come to mean."""

    inode: int  # 0: it is no longer there
    inodes: set[int]  # all that it has meant since the last transaction, and the one before


class Changes:
    """The changes of all commits that were added."""

    def __init__(self) -> None:
        self.commits = 0
        self.heads: dict[int, bytes] = {}  # by inode
        self.created: set[int] = set()  # inodes; what had their numbers before is gone
        self.ranges: dict[int, list[Mapped]] = {}  # by inode
        self.names: dict[int, dict[bytes, Name]] = {}  # by directory
        self.contradictory: set[int] = set()  # directories

    def add(self, commit: Iterable[Change]) -> None:
        """Apply a commit: all of it, and in its order, since later changes undo earlier ones."""
        commit = list(commit)
        created = {one.inode for one in commit if isinstance(one, Named) and one.what == CREATE}
        for change in commit:
            if isinstance(change, Named):
                self._name(change)
            elif isinstance(change, Mapped):
                self.ranges.setdefault(change.inode, []).append(change)
            else:
                self._store(change, created)
        self.commits += 1

    def _store(self, change: Stored, created: set[int]) -> None:
        if change.inode in created:  # it comes before its first name, and before its blocks
            created.discard(change.inode)
            self.created.add(change.inode)
            self.ranges.pop(change.inode, None)
            self.names.pop(change.inode, None)
            self.contradictory.discard(change.inode)
        self.heads[change.inode] = change.head

    def _name(self, change: Named) -> None:
        names = self.names.setdefault(change.directory, {})
        inode = 0 if change.what == UNLINK else change.inode
        known = names.setdefault(change.name, Name(inode, set()))
        if known.inode not in (0, change.inode):
            self.contradictory.add(change.directory)
        known.inode = inode
        known.inodes.add(change.inode)

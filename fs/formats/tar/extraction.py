"""Files members in the index as extracting them one after another would leave them on a disk.

The last member of a name wins, a hard link binds to what its target was at that moment, and missing
directories are made. What cannot be shown as it stands is left out, and said: names with `..`,
links to what is not there, members below a file or symlink.
"""

import sqlite3
import stat

from backgate.fs.formats.tar.members import Member
from backgate.fs.formats.tar.schema import ROOT
from backgate.gateway.errors import Damaged

NAME_MAX = 255  # bytes in one component, the kernel's limit
PATH_MAX = 32768  # bytes; paths longer than the kernel takes at once exist
DEPTH_MAX = 2048  # components
TARGET_MAX = 4095  # bytes of a symlink
NODES_MAX = 100_000_000  # some 20 GB of index; beyond it an archive means harm
LEFT_OUT_MAX = 1000  # how many are remembered one by one
KNOWN_DIRECTORIES = 16384  # whose nodes are kept in memory
IMPLIED_MODE = stat.S_IFDIR | 0o755

_INSERT_NODE = "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DESCRIBE = (
    "UPDATE nodes SET mode = ?, uid = ?, gid = ?, mtime_ns = ?, atime_ns = ?, ctime_ns = ?, "
    "has_xattrs = ? WHERE node = ?"
)


class _LeftOut(ValueError):
    """This member cannot be shown; the message says why."""


class Extraction:
    """Writes members into the index that `connection` has open."""

    def __init__(self, connection: sqlite3.Connection, where: str, time_ns: int) -> None:
        """`time_ns` is given to directories that no member describes."""
        self._db, self._where, self._time_ns = connection, where, time_ns
        self._directories: dict[tuple[int, bytes], int] = {}
        self._nodes = 0
        self.members = self.left_out = 0
        self._add_directory()

    def add(self, member: Member) -> None:
        """Let `member` take its place; `Damaged` when there are more than any archive has."""
        self.members += 1
        try:
            self._place(member)
        except _LeftOut as reason:
            self.left_out += 1
            if self.left_out <= LEFT_OUT_MAX:
                row = (member.at, member.path[:PATH_MAX], str(reason))
                self._db.execute("INSERT OR REPLACE INTO left_out VALUES (?, ?, ?)", row)

    def _place(self, member: Member) -> None:
        parts = _components(member.path)
        is_directory = stat.S_ISDIR(member.mode) and not member.is_hard_link
        if not parts:
            if not is_directory:
                raise _LeftOut("it has no name")
            self._describe(ROOT, member)
            return
        if stat.S_ISLNK(member.mode) and not 0 < len(member.link) <= TARGET_MAX:
            raise _LeftOut(f"a symlink to a name of {len(member.link)} bytes")
        parent, name = self._directory(parts[:-1]), parts[-1]
        target = self._link_target(member) if member.is_hard_link else None
        there = self._look_up(parent, name)
        if is_directory and there is not None and self._is_directory(there):
            self._describe(there, member)
        elif target is None or target != there:
            self._replace(parent, name, there)
            self._name(parent, name, self._add(member) if target is None else target)
            if target is not None:
                self._db.execute("UPDATE nodes SET nlink = nlink + 1 WHERE node = ?", (target,))

    def _directory(self, parts: list[bytes]) -> int:
        node = ROOT
        for depth, name in enumerate(parts):
            known = self._directories.get((node, name))
            if known is None:
                known = self._find_or_make(node, name, parts[: depth + 1])
            node = known
        return node

    def _find_or_make(self, parent: int, name: bytes, path: list[bytes]) -> int:
        node = self._look_up(parent, name)
        if node is None:
            node = self._add_directory()
            self._name(parent, name, node)
        elif not self._is_directory(node):
            raise _LeftOut(f"{b'/'.join(path).decode('utf-8', 'backslashreplace')} is no directory")
        if len(self._directories) >= KNOWN_DIRECTORIES:
            self._directories.clear()
        self._directories[parent, name] = node
        return node

    def _link_target(self, member: Member) -> int:
        node: int | None = ROOT
        for name in _components(member.link):
            node = None if node is None else self._look_up(node, name)
        if node is None:
            raise _LeftOut("a hard link to a name that is not in the archive before it")
        if self._is_directory(node):
            raise _LeftOut("a hard link to a directory")
        return node

    def _look_up(self, parent: int, name: bytes) -> int | None:
        query = "SELECT node FROM names WHERE parent = ? AND name = ?"
        row = self._db.execute(query, (parent, name)).fetchone()
        return None if row is None else int(row[0])

    def _is_directory(self, node: int) -> bool:
        row = self._db.execute("SELECT mode FROM nodes WHERE node = ?", (node,)).fetchone()
        return stat.S_ISDIR(row[0])

    def _replace(self, parent: int, name: bytes, there: int | None) -> None:
        """Take away what bears the name; only an empty directory gives way to something else."""
        if there is None:
            return
        if self._is_directory(there):
            query = "SELECT 1 FROM names WHERE parent = ? LIMIT 1"
            if self._db.execute(query, (there,)).fetchone() is not None:
                raise _LeftOut("a directory of that name is not empty")
            self._directories.pop((parent, name), None)
        self._db.execute("UPDATE nodes SET nlink = nlink - 1 WHERE node = ?", (there,))
        gone = self._db.execute("DELETE FROM nodes WHERE node = ? AND nlink = 0", (there,))
        if gone.rowcount:
            self._db.execute("DELETE FROM extents WHERE node = ?", (there,))
            self._db.execute("DELETE FROM xattrs WHERE node = ?", (there,))

    def _name(self, parent: int, name: bytes, node: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (parent, name, node))

    def _next_node(self) -> int:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise Damaged(self._where, None, f"more than {NODES_MAX} names")
        return self._nodes

    def _add_directory(self) -> int:
        node = self._next_node()
        row = (node, IMPLIED_MODE, 0, 0, 0, self._time_ns, None, None, 1, 0, 0, None, 0, 0)
        self._db.execute(_INSERT_NODE, row)
        return node

    def _add(self, member: Member) -> int:
        node = self._next_node()
        target = member.link if stat.S_ISLNK(member.mode) else None
        size = len(member.link) if target is not None else member.size
        times = (member.mtime_ns, member.atime_ns, member.ctime_ns)
        what = (target, member.extents is not None, bool(member.xattrs))
        row = (node, member.mode, member.uid, member.gid, size, *times, 1, member.rdev)
        self._db.execute(_INSERT_NODE, (*row, member.data, *what))
        if member.xattrs:
            self._add_xattrs(node, member)
        if member.extents is not None:
            self._add_extents(node, member)
        return node

    def _describe(self, node: int, member: Member) -> None:
        times = (member.mtime_ns, member.atime_ns, member.ctime_ns)
        row = (member.mode, member.uid, member.gid, *times, bool(member.xattrs), node)
        self._db.execute(_DESCRIBE, row)
        self._db.execute("DELETE FROM xattrs WHERE node = ?", (node,))
        self._add_xattrs(node, member)

    def _add_xattrs(self, node: int, member: Member) -> None:
        rows = ((node, name, value) for name, value in member.xattrs.items())
        self._db.executemany("INSERT INTO xattrs VALUES (?, ?, ?)", rows)

    def _add_extents(self, node: int, member: Member) -> None:
        data = member.data
        for start, length in member.extents or ():
            self._db.execute("INSERT INTO extents VALUES (?, ?, ?, ?)", (node, start, length, data))
            data += length


def _components(path: bytes) -> list[bytes]:
    """Return the path's names; a leading slash and `.` mean nothing, `..` is refused."""
    if len(path) > PATH_MAX:
        raise _LeftOut(f"a path of {len(path)} bytes")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _LeftOut("its name contains '..'")
    if len(parts) > DEPTH_MAX:
        raise _LeftOut(f"a path of {len(parts)} names")
    if any(len(part) > NAME_MAX for part in parts):
        raise _LeftOut(f"a name of more than {NAME_MAX} bytes")
    return parts

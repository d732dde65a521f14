"""Reads the member index of one archive: point look-ups, pages, extents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backgate.fs.formats.indexes import open_index

NODE_COLUMNS = (
    "node, mode, uid, gid, size, mtime_ns, atime_ns, ctime_ns, nlink, rdev, data, target, "
    "is_sparse, has_xattrs"
)


class Node(NamedTuple):
    """One inode of the archive, as `NODE_COLUMNS` give it."""

    node: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    atime_ns: int | None
    ctime_ns: int | None
    nlink: int
    rdev: int
    data: int
    target: bytes | None
    is_sparse: int
    has_xattrs: int


class Extent(NamedTuple):
    """A piece of a sparse file that has data."""

    start: int  # in the file
    length: int
    data: int  # where it lies in the archive


class Index:
    """The index file at `path`, open until it is closed."""

    def __init__(self, path: Path) -> None:
        """Raises `sqlite3.DatabaseError` when the file is no index."""
        self.connection = open_index(path)

    def close(self) -> None:
        """Close the file; nothing is asked of this index afterwards."""
        self.connection.close()

    def fact(self, name: str) -> int | str | None:
        """Return what was noted of the whole archive under `name`."""
        row = self._one("SELECT value FROM facts WHERE name = ?", (name,))
        value: int | str | None = None if row is None else row[0]
        return value

    def node(self, number: int) -> Node:
        """Return the node of that number, which is there."""
        row = self._one(f"SELECT {NODE_COLUMNS} FROM nodes WHERE node = ?", (number,))
        assert row is not None
        return Node(*row)

    def child(self, parent: int, name: bytes) -> Node | None:
        """Return what bears `name` in the directory, if anything does."""
        query = f"SELECT {NODE_COLUMNS} FROM names JOIN nodes USING (node) "
        row = self._one(query + "WHERE parent = ? AND name = ?", (parent, name))
        return None if row is None else Node(*row)

    def children(self, parent: int, after: bytes, limit: int) -> list[tuple[bytes, Node]]:
        """Return up to `limit` names behind `after`, in byte order."""
        query = f"SELECT name, {NODE_COLUMNS} FROM names JOIN nodes USING (node) "
        query += "WHERE parent = ? AND name > ? ORDER BY name LIMIT ?"
        rows = self.connection.execute(query, (parent, after, limit))
        return [(name, Node(*rest)) for name, *rest in rows]

    def extents(self, node: int, start: int, stop: int, limit: int) -> list[Extent]:
        """Return the first `limit` pieces of a file that touch `[start, stop)`."""
        query = (
            "SELECT start, length, data FROM extents WHERE node = ?1 AND start < ?3 AND start >= "
            "coalesce((SELECT max(start) FROM extents WHERE node = ?1 AND start <= ?2), ?2) "
            "ORDER BY start LIMIT ?4"
        )
        rows = self.connection.execute(query, (node, start, stop, limit))
        extents = [Extent(*row) for row in rows]
        return [extent for extent in extents if extent.start + extent.length > start]

    def left_out(self, limit: int) -> list[str]:
        """Return the first members that cannot be shown, each with the reason."""
        query = "SELECT path, reason FROM left_out ORDER BY at LIMIT ?"
        rows = self.connection.execute(query, (limit,))
        return [f"{path.decode('utf-8', 'backslashreplace')!r}: {reason}" for path, reason in rows]

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Return the extended attributes of a node."""
        query = "SELECT name, value FROM xattrs WHERE node = ? ORDER BY name"
        return dict(self.connection.execute(query, (node,)).fetchall())

    def _one(self, query: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self.connection.execute(query, values).fetchone()
        return row

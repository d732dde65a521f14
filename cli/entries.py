"""How one entry of a tree is printed: a long line for people, a record for programs."""

import stat
from typing import Any

from backgate.cli.output import name_text, printable, time_text
from backgate.fs.tree import Entry

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def entry_record(path: bytes, entry: Entry) -> dict[str, Any]:
    """Return `entry` as it is printed with --json; `path` is from the top of the tree."""
    record: dict[str, Any] = {
        "name": name_text(entry.name),
        "path": name_text(path),
        "type": TYPES.get(stat.S_IFMT(entry.mode), "unknown"),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "links": entry.nlink,
        "mtime": time_text(entry.mtime_ns),
        "mtime_ns": entry.mtime_ns,
    }
    if entry.target is not None:
        record["target"] = name_text(entry.target)
    return record


def long_line(entry: Entry) -> str:
    """Return `entry` as `ls -l` shows it; owners are numbers, since names differ by host."""
    target = "" if entry.target is None else f" -> {printable(entry.target)}"
    return (
        f"{stat.filemode(entry.mode)} {entry.uid:>6} {entry.gid:>6} {entry.size:>14} "
        f"{time_text(entry.mtime_ns)} {printable(entry.name)}{target}"
    )

"""Say in words how two directory trees differ: content, modes, owners, times, links."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

PIECE = 1 << 20  # bytes compared at a time


def differences(left: Path, right: Path, *, times: bool = True, owners: bool = True) -> list[str]:
    """Return one line for each difference; an empty list says that the trees are equal.

    Compared are names, types, permission bits, owners, modification times of all but symlinks,
    symlink targets, contents, and which names are hard links of one another.
    """
    found = [f"{name}: only on one side" for name in sorted(_names(left) ^ _names(right))]
    for name in sorted(_names(left) & _names(right)):
        found += [
            f"{name}: {what}" for what in _differing(left / name, right / name, times, owners)
        ]
    if _link_groups(left) != _link_groups(right):
        found.append(f"hard links: {_link_groups(left)} and {_link_groups(right)}")
    return found


def of_files(found: list[str], top: Path) -> list[str]:
    """Leave out what differs of directories, which some stores keep no attributes of."""
    return [line for line in found if not _is_directory(top / line.rpartition(": ")[0])]


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _names(top: Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(folder, name), top)
        for folder, directories, files in os.walk(top)
        for name in [*directories, *files]
    }


def _differing(left: Path, right: Path, times: bool, owners: bool) -> Iterator[str]:
    a, b = left.lstat(), right.lstat()
    if a.st_mode != b.st_mode:
        yield f"mode {a.st_mode:o} and {b.st_mode:o}"
        return
    if owners and (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid):
        yield f"owner {a.st_uid}:{a.st_gid} and {b.st_uid}:{b.st_gid}"
    if times and a.st_mtime_ns != b.st_mtime_ns:
        yield f"mtime {a.st_mtime_ns} and {b.st_mtime_ns}"
    if stat.S_ISLNK(a.st_mode) and os.readlink(left) != os.readlink(right):
        yield f"target {os.readlink(left)} and {os.readlink(right)}"
    if stat.S_ISREG(a.st_mode):
        if a.st_size != b.st_size:
            yield f"size {a.st_size} and {b.st_size}"
        elif not _same_content(left, right):
            yield "content"


def _same_content(left: Path, right: Path) -> bool:
    with left.open("rb") as a, right.open("rb") as b:
        while True:
            piece = a.read(PIECE)
            if piece != b.read(PIECE):
                return False
            if not piece:
                return True


def _link_groups(top: Path) -> set[frozenset[str]]:
    groups: dict[tuple[int, int], set[str]] = {}
    for name in _names(top):
        status = (top / name).lstat()
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            groups.setdefault((status.st_dev, status.st_ino), set()).add(name)
    return {frozenset(group) for group in groups.values() if len(group) > 1}

"""What directories of a local store hold, in the order of keys, read again when they change.

A listing comes in pages, each of which begins somewhere in the middle: without this, a directory of
a hundred thousand files would be read and sorted a hundred times.
"""

import os
import threading
import time

from cachetools import LRUCache

from backgate.gateway.units import SECOND_NS

REMEMBERED = 200_000  # names, of all directories together; some 16 MB
FEW = 500  # names that are read again rather than remembered
# A time of change so recent may be that of two changes, the second after our look.
RECENT_NS = 2 * SECOND_NS

_Directory = tuple[int, int]  # device, inode
_Names = tuple[int, list[str]]  # time of the directory's last change, what it held then


class Directories:
    """Reads directories; any number of threads may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: LRUCache[_Directory, _Names] = LRUCache(
            REMEMBERED, lambda known: 1 + len(known[1])
        )

    def names(self, folder: int) -> list[str]:
        """Return the files and directories in the open directory `folder`, as keys have them.

        In byte order; a directory's name ends in a slash, and counts with it.
        """
        before = os.fstat(folder)
        directory = (before.st_dev, before.st_ino)
        with self._lock:
            known = self._known.get(directory)
        if known is not None and known[0] == before.st_mtime_ns:
            return known[1]
        asked_ns = time.time_ns()
        names = _read(folder)
        is_old = before.st_mtime_ns < asked_ns - RECENT_NS
        if is_old and FEW < len(names) < REMEMBERED:
            with self._lock:
                self._known[directory] = before.st_mtime_ns, names
        return names


def _read(folder: int) -> list[str]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                continue  # no key is called so; we never made it
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
    names.sort()
    return names

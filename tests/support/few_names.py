"""Use the same few names of a file system for ever other files, links and directories."""

import ctypes
import errno
import os
import random
from pathlib import Path

DIRECTORIES, NAMES = ["", "a", "b", "a/c"], "12345"
SYMLINKS = [3, 300]  # bytes of a target
NEVER = {errno.EIO, errno.ENOSPC, errno.EUCLEAN}  # all else may well be met
EXCHANGE = 2  # of renameat2(2)
AT_FDCWD = -100
LIBC = ctypes.CDLL(None, use_errno=True)


class FewNames:
    """Makes, changes, links, exchanges and removes what has one of 20 names below `root`."""

    def __init__(self, root: Path, seed: str) -> None:
        self._root, self._chance = os.fspath(root), random.Random(seed)
        for name in DIRECTORIES[1:]:
            os.mkdir(root / name)
        self._steps = {
            self.write: 3,
            self.truncate: 1,
            self.allocate: 1,
            self.attribute: 1,
            self.symlink: 1,
            self.link: 1,
            self.rename: 1,
            self.exchange: 1,
            self.unlink: 1,
            self.mkdir: 1,
            self.rmdir: 1,
        }

    def step(self) -> bool:
        """Do one thing; tell whether something was synchronized after it."""
        (what,) = self._chance.choices(list(self._steps), self._steps.values())
        try:
            what()
            if self._chance.random() < 0.35:
                self.synchronize()
                return True
        except OSError as error:
            if error.errno in NEVER:
                raise
        return False

    def synchronize(self) -> None:
        directory = os.path.join(self._root, self._chance.choice(DIRECTORIES))
        path = directory if self._chance.random() < 0.25 else self._name()
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        os.fsync(descriptor)
        os.close(descriptor)

    def _name(self) -> str:
        directory = self._chance.choice(DIRECTORIES)
        return os.path.join(self._root, directory, self._chance.choice(NAMES))

    def write(self) -> None:
        with open(self._name(), self._chance.choice(("r+b", "wb"))) as file:
            file.seek(self._chance.choice((0, 100, 5000, 70_000)))
            file.write(os.urandom(self._chance.choice((5, 3000, 9000))))

    def truncate(self) -> None:
        os.truncate(self._name(), self._chance.choice((0, 50, 5000, 80_000)))

    def allocate(self) -> None:
        """Allocate a stretch, with what is there left, behind its end, or punched out."""
        descriptor = os.open(self._name(), os.O_RDWR | os.O_CREAT)
        start, length = self._chance.choice((0, 4096, 9000)), self._chance.choice((100, 50_000))
        way, place = self._chance.choice((0, 1, 3)), (ctypes.c_int64(start), ctypes.c_int64(length))
        LIBC.fallocate(descriptor, way, *place)
        os.close(descriptor)

    def attribute(self) -> None:
        path, name = self._name(), "user." + self._chance.choice("ab")
        if self._chance.random() < 0.6:
            os.setxattr(path, name, os.urandom(9))
        else:
            os.removexattr(path, name)

    def symlink(self) -> None:
        os.symlink("t" * self._chance.choice(SYMLINKS), self._name())

    def link(self) -> None:
        os.link(self._name(), self._name(), follow_symlinks=False)

    def rename(self) -> None:
        os.rename(self._name(), self._name())

    def exchange(self) -> None:
        names = self._name().encode(), self._name().encode()
        if LIBC.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], EXCHANGE):
            raise OSError(ctypes.get_errno(), "renameat2")

    def unlink(self) -> None:
        os.unlink(self._name())

    def mkdir(self) -> None:
        os.mkdir(self._name())

    def rmdir(self) -> None:
        os.rmdir(self._name())

"""Use a file system hard and without end: `busy.py DIRECTORY SEED [WAY]`; a line for 50 steps.

With `fast`, as ext4 commits fast: it does not when there are attributes, symlinks or devices. With
`logged`, as btrfs logs: much is synchronized alone, and below each directory that is there.
"""

import ctypes
import errno
import os
import random
import sys

REFUSED = {
    errno.EBUSY,
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.EMLINK,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTEMPTY,
    errno.ENOTSUP,
    errno.EPERM,
    errno.EXDEV,
}  # a step may well make no sense
TOLD = 50  # steps
FILES_MAX, DEPTH_MAX = 300, 6
LIBC = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE = 1, 2  # of fallocate(2)
JOURNAL_MARK = b"\xc0\x3b\x39\x98"


class Busy:
    """Makes, changes, links, renames and removes files, by chance."""

    def __init__(self, root: str, seed: int, way: str = "") -> None:
        self._chance = random.Random(seed)
        self._directories: list[str] = [root]
        self._files: list[str] = []
        self.number = 0  # of steps
        self._steps = {
            self.directory: 5,
            self.file: 38,
            self.symlink: 5,
            self.link: 5,
            self.attribute: 7,
            self.unlink: 13,
            self.rename: 7,
            self.truncate: 5,
            self.overwrite: 6,
            self.mode: 3,
            self.synchronize: 2,
            self.marks: 1,
            self.allocate: 2,
        }
        if way:
            self._steps |= {self.remove: 3, self.replace: 6, self.punch: 3, self.commit: 12}
        if way == "fast":
            del self._steps[self.attribute], self._steps[self.symlink]
            self._steps[self.synchronize] = 0
        if way == "logged":
            self._directories += [
                entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)
            ]
            self._steps[self.commit_directory] = 4

    def step(self) -> None:
        self.number += 1
        (what,) = self._chance.choices(list(self._steps), self._steps.values())
        try:
            what()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                for _ in range(len(self._files) // 2):
                    self.unlink()
            elif error.errno not in REFUSED:
                raise

    def _new(self, kind: str) -> str:
        directory = self._chance.choice(self._directories[-40:])
        return f"{directory}/{kind}{self.number}" + "x" * self._chance.randrange(0, 120, 20)

    def _old(self) -> str:
        if not self._files:
            raise FileNotFoundError(errno.ENOENT, "none yet")
        return self._chance.choice(self._files)

    def _opened(self, path: str, flags: int = 0) -> int:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags)

    def directory(self) -> None:
        path = self._new("directory")
        os.mkdir(path)
        if path.count("/") < self._directories[0].count("/") + DEPTH_MAX:
            self._directories.append(path)

    def file(self) -> None:
        if len(self._files) > FILES_MAX:
            self.unlink()
        path = self._new("file")
        with open(path, "wb") as file:
            file.write(os.urandom(self._chance.choice((0, 10, 100, 5000, 20_000, 200_000))))
        self._files.append(path)

    def symlink(self) -> None:
        path = self._new("symlink")
        os.symlink("t" * self._chance.choice((3, 50, 200, 900)), path)
        self._files.append(path)

    def link(self) -> None:
        path = self._new("link")
        os.link(self._old(), path, follow_symlinks=False)
        self._files.append(path)

    def attribute(self) -> None:
        size = self._chance.choice((3, 30, 300, 2000))
        name = f"user.{self._chance.randrange(30)}"
        os.setxattr(self._old(), name, os.urandom(size), follow_symlinks=False)

    def unlink(self) -> None:
        path = self._old()
        self._files.remove(path)
        os.unlink(path)

    def rename(self) -> None:
        old, new = self._old(), self._new("renamed")
        os.rename(old, new)
        self._files[self._files.index(old)] = new

    def replace(self) -> None:
        old, new = self._old(), self._old()
        os.rename(old, new)  # which does nothing when they are one file
        if not os.path.lexists(old):
            self._files.remove(old)

    def remove(self) -> None:
        path = self._chance.choice(self._directories)
        os.rmdir(path)
        self._directories.remove(path)

    def punch(self) -> None:
        start, length = self._chance.randrange(200_000), self._chance.randrange(1, 90_000)
        descriptor = self._opened(self._old())
        place = (ctypes.c_int64(start), ctypes.c_int64(length))
        failed = LIBC.fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, *place)
        os.close(descriptor)
        if failed:
            raise OSError(ctypes.get_errno(), "fallocate")

    def truncate(self) -> None:
        descriptor = self._opened(self._old())
        os.ftruncate(descriptor, self._chance.randrange(100_000))
        os.close(descriptor)

    def overwrite(self) -> None:
        descriptor = self._opened(self._old())
        data = os.urandom(self._chance.randrange(1, 20_000))
        os.pwrite(descriptor, data, self._chance.randrange(300_000))
        os.close(descriptor)

    def mode(self) -> None:
        descriptor = self._opened(self._old())
        os.fchmod(descriptor, self._chance.randrange(0o1000))
        os.close(descriptor)

    def synchronize(self) -> None:
        if self._chance.randrange(4):
            self.commit()
        else:
            os.sync()

    def commit(self) -> None:
        descriptor = self._opened(self._old())
        os.fsync(descriptor)
        os.close(descriptor)

    def commit_directory(self) -> None:
        descriptor = os.open(self._chance.choice(self._directories), os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def marks(self) -> None:
        path = self._new("marks")
        with open(path, "wb") as file:
            file.write(JOURNAL_MARK * 2000)
        self._files.append(path)

    def allocate(self) -> None:
        path = self._new("allocated")
        descriptor = self._opened(path, os.O_CREAT)
        self._files.append(path)
        os.posix_fallocate(descriptor, 0, 300_000)
        os.pwrite(descriptor, os.urandom(50_000), self._chance.randrange(300_000))
        os.close(descriptor)


def main() -> None:
    busy = Busy(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
    while True:
        for _ in range(TOLD):
            busy.step()
        print(flush=True)


if __name__ == "__main__":
    main()

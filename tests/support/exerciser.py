"""Exercise one file of a mount at random, in the manner of fsx, against a byte array as the model.

    PYTHONPATH=tests python -m support.exerciser DIRECTORY --seed 7 --operations 100000

Every operation is a verb and three numbers, drawn from the seed; any numbers mean something. On a
failure the last operations and the command that repeats them are printed, and all of them are
written to `exerciser.log`, which `--replay` takes: lines may be left out of it to find the few that
matter.
"""

import argparse
import ctypes
import mmap
import os
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

SIZE_MAX = 256 * 1024  # bytes of the file
LENGTHS = 4  # a size is so many times the longest operation
SHOWN = 30  # operations before a failure that are printed
EVERYTHING_EACH = 500  # operations; then the whole file is compared
NAMES = ("file", "other", "file.tmp", "below/file")  # one of them is staged

WEIGHTS = {
    "read": 14,
    "read_elsewhere": 5,
    "read_direct": 3,
    "send": 2,
    "forget": 3,
    "write": 16,
    "write_direct": 4,
    "append": 4,
    "truncate": 6,
    "truncate_by_name": 3,
    "map_read": 6,
    "map_write": 10,
    "copy_range": 3,
    "reopen": 6,
    "reopen_empty": 1,
    "synchronize": 4,
    "rename": 4,
    "stat": 4,
    "unlink": 1,
    "second_close": 2,
}


class Operation(NamedTuple):
    """One step."""

    verb: str
    one: int
    two: int
    three: int

    def __str__(self) -> str:
        return " ".join(map(str, self))


class Different(AssertionError):
    """The file is not what the model says."""


def operations(seed: int, count: int) -> Iterator[Operation]:
    """Return `count` random steps."""
    chance = random.Random(seed)
    verbs, weights = list(WEIGHTS), list(WEIGHTS.values())
    for verb in chance.choices(verbs, weights, k=count):
        yield Operation(verb, *(chance.getrandbits(30) for _ in range(3)))


def parsed(lines: Iterable[str]) -> Iterator[Operation]:
    """Return the steps that a log tells."""
    for line in lines:
        verb, *numbers = line.split()
        yield Operation(verb, *map(int, numbers))


class Exerciser:
    """The file below `top`, of up to `size` bytes, and what it should hold."""

    def __init__(self, top: Path, size: int = SIZE_MAX) -> None:
        self._top, self._name = top, NAMES[0]
        self._size, self._length = size, size // LENGTHS
        self._model = bytearray()
        self._file = -1
        self.log: list[Operation] = []

    def run(self, steps: Iterable[Operation]) -> None:
        """Take all `steps`; raises `Different`, with `log` telling what led there."""
        (self._top / "below").mkdir(exist_ok=True)
        self._create()
        try:
            for step in steps:
                self.log.append(step)
                getattr(self, f"_{step.verb}")(step.one, step.two, step.three)
                if len(self.log) % EVERYTHING_EACH == 0:
                    self._compare_everything()
            self._reopen(0, 0, 0)
            self._compare_everything()
        finally:
            os.close(self._file)

    @property
    def _path(self) -> Path:
        return self._top / self._name

    def _create(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._model = bytearray()

    def _read(self, one: int, two: int, three: int) -> None:
        offset, length = one % (len(self._model) + 1), two % self._length
        self._compare(offset, length, os.pread(self._file, length, offset))

    def _read_elsewhere(self, one: int, two: int, three: int) -> None:
        """By a descriptor of its own, opened for reading only."""
        offset, length = one % (len(self._model) + 1), two % self._length
        reader = os.open(self._path, os.O_RDONLY)
        try:
            self._compare(offset, length, os.pread(reader, length, offset))
        finally:
            os.close(reader)

    def _read_direct(self, one: int, two: int, three: int) -> None:
        """Past the kernel's page cache, as `fsx -Z`: whole pages, and what the last one has."""
        offset = _page_before(one % (len(self._model) + 1))
        length = mmap.PAGESIZE + _page_before(two % self._length)
        with mmap.mmap(-1, length) as room, open(self._path, "rb", 0, opener=_directly) as reader:
            reader.seek(offset)
            self._compare(offset, length, room[: reader.readinto(room)])

    def _send(self, one: int, two: int, three: int) -> None:
        """Out of the page cache, without a buffer of ours."""
        offset, length = one % (len(self._model) + 1), two % self._length
        with open(os.memfd_create("sent"), "r+b", 0) as taken:
            at = taken.tell
            while os.sendfile(taken.fileno(), self._file, offset + at(), length - at()):
                pass
            taken.seek(0)
            self._compare(offset, length, taken.read())

    def _forget(self, one: int, two: int, three: int) -> None:
        """Have the kernel drop the pages it holds: what is read next, the gateway answers."""
        os.fsync(self._file)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)

    def _write_direct(self, one: int, two: int, three: int) -> None:
        offset = _page_before(one % self._size)
        wanted = mmap.PAGESIZE + _page_before(two % self._length)
        length = min(wanted, _page_before(self._size - offset))
        if not length:
            return
        data = random.Random(three).randbytes(length)
        with mmap.mmap(-1, length) as room, open(self._path, "r+b", 0, opener=_directly) as writer:
            room[:] = data
            writer.seek(offset)
            assert writer.write(room) == length
        self._put(offset, data)

    def _write(self, one: int, two: int, three: int) -> None:
        offset, length = one % self._size, 1 + two % self._length
        data = random.Random(three).randbytes(min(length, self._size - offset))
        assert os.pwrite(self._file, data, offset) == len(data)
        self._put(offset, data)

    def _append(self, one: int, two: int, three: int) -> None:
        if len(self._model) == self._size:
            return
        data = random.Random(three).randbytes(1 + two % (self._size - len(self._model)))
        appender = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            assert os.write(appender, data) == len(data)
        finally:
            os.close(appender)
        self._put(len(self._model), data)

    def _truncate(self, one: int, two: int, three: int) -> None:
        os.ftruncate(self._file, one % (self._size + 1))
        self._cut(one % (self._size + 1))

    def _truncate_by_name(self, one: int, two: int, three: int) -> None:
        os.truncate(self._path, one % (self._size + 1))
        self._cut(one % (self._size + 1))

    def _map_read(self, one: int, two: int, three: int) -> None:
        if not self._model:
            return
        offset = one % len(self._model)
        page = offset % mmap.ALLOCATIONGRANULARITY
        length = min(1 + two % self._length, len(self._model) - offset)
        with mmap.mmap(
            self._file, page + length, access=mmap.ACCESS_READ, offset=offset - page
        ) as view:
            self._compare(offset, length, view[page:])

    def _map_write(self, one: int, two: int, three: int) -> None:
        """Through a mapping, for which the file grows first."""
        offset, length = one % self._size, 1 + two % self._length
        data = random.Random(three).randbytes(min(length, self._size - offset))
        if offset + len(data) > len(self._model):
            os.ftruncate(self._file, offset + len(data))
            self._cut(offset + len(data))
        page = offset % mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(self._file, page + len(data), offset=offset - page) as view:
            view[page:] = data
            if offset + len(data) == len(self._model):
                _expect_zeros_behind(view)
            if three % 2:
                view.flush()
        self._put(offset, data)

    def _copy_range(self, one: int, two: int, three: int) -> None:
        if not self._model:
            return
        source, target = one % len(self._model), two % self._size
        length = min(three % self._length, len(self._model) - source, self._size - target)
        if source < target + length and target < source + length:
            return  # EINVAL on every file system
        copied = 0
        while copied < length:
            count = os.copy_file_range(
                self._file, self._file, length - copied, source + copied, target + copied
            )
            if not count:
                raise Different(f"copy_file_range ended {length - copied} bytes early")
            copied += count
        self._put(target, bytes(self._model[source : source + length]))

    def _reopen(self, one: int, two: int, three: int) -> None:
        os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR)

    def _reopen_empty(self, one: int, two: int, three: int) -> None:
        os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR | os.O_TRUNC)
        self._model.clear()

    def _synchronize(self, one: int, two: int, three: int) -> None:
        os.fsync(self._file)

    def _rename(self, one: int, two: int, three: int) -> None:
        old, self._name = self._path, NAMES[one % len(NAMES)]
        os.rename(old, self._path)

    def _stat(self, one: int, two: int, three: int) -> None:
        for size in (os.fstat(self._file).st_size, os.stat(self._path).st_size):
            if size != len(self._model):
                raise Different(f"its size is {size}, and should be {len(self._model)}")

    def _unlink(self, one: int, two: int, three: int) -> None:
        """Take its name from it, compare it once more, and begin anew."""
        os.unlink(self._path)
        self._read(one, two, three)
        os.close(self._file)
        self._create()

    def _second_close(self, one: int, two: int, three: int) -> None:
        """Close a second descriptor of the same opening, which stores the file."""
        os.close(os.dup(self._file))

    def _put(self, offset: int, data: bytes) -> None:
        if offset > len(self._model):
            self._model += bytes(offset - len(self._model))
        self._model[offset : offset + len(data)] = data

    def _cut(self, size: int) -> None:
        del self._model[size:]
        self._model += bytes(size - len(self._model))

    def _compare_everything(self) -> None:
        self._stat(0, 0, 0)
        self._compare(0, self._size, self._path.read_bytes())

    def _compare(self, offset: int, length: int, found: bytes) -> None:
        expected = self._model[offset : offset + length]
        if found == expected:
            return
        if len(found) != len(expected):
            raise Different(f"{len(found)} bytes at {offset:#x}, and not {len(expected)}")
        wrong = [at for at in range(len(found)) if found[at] != expected[at]]
        first, last = offset + wrong[0], offset + wrong[-1]
        raise Different(
            f"{len(wrong)} bytes from {first:#x} to {last:#x} are wrong, the first"
            f" {found[wrong[0]]:#04x} and not {expected[wrong[0]]:#04x}"
        )


def _directly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_DIRECT)


def _page_before(offset: int) -> int:
    return offset - offset % mmap.PAGESIZE


def _expect_zeros_behind(view: mmap.mmap) -> None:
    """What the last page of a file has behind its end is zeros."""
    left = -len(view) % mmap.PAGESIZE
    last = ctypes.c_char.from_buffer(view, len(view) - 1)
    behind = ctypes.string_at(ctypes.addressof(last) + 1, left)
    del last
    if behind != bytes(left):
        raise Different("behind the end of the file, its last page is not zeros")


def exercise(top: Path, seed: int, count: int, log: Path, size: int = SIZE_MAX) -> None:
    """Take `count` steps from `seed` below `top`; raises `Different` that says how to repeat it."""
    how = f"--size {size} --seed {seed} --operations {count}"
    taken(Exerciser(top, size), operations(seed, count), log, f"{top} {how}")


def taken(exerciser: Exerciser, steps: Iterable[Operation], log: Path, how: str) -> None:
    """Take `steps`; what goes wrong tells the last of them, and `how` to repeat them."""
    try:
        exerciser.run(steps)
    except (Different, OSError) as error:
        log.write_text("".join(f"{step}\n" for step in exerciser.log))
        number = len(exerciser.log)
        last = "\n".join(f"  {step}" for step in exerciser.log[-SHOWN:])
        raise Different(
            f"operation {number}: {error}\n{last}\nall of them: {log}; to repeat:"
            f"\n  python -m support.exerciser {how}\n  or with --replay {log}"
        ) from error


def main() -> int:
    """Exercise a directory as the command line says; 1 when something differs."""
    parser = argparse.ArgumentParser(prog="python -m support.exerciser", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", type=int, default=SIZE_MAX, help="bytes it has at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--replay", type=Path, help="a log of operations, instead of a seed")
    parser.add_argument("--log", type=Path, default=Path("exerciser.log"))
    chosen = parser.parse_args()
    top = chosen.directory / "exerciser"
    top.mkdir()
    try:
        if chosen.replay is None:
            exercise(top, chosen.seed, chosen.operations, chosen.log, chosen.size)
        else:
            steps = list(parsed(chosen.replay.read_text().splitlines()))
            taken(Exerciser(top, chosen.size), steps, chosen.log, f"{top} --size {chosen.size}")
    except Different as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{chosen.directory}: {chosen.operations} operations of seed {chosen.seed}: all equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())

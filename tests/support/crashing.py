"""Tools that write through a mount until it is killed, and what each was told is safe.

Each writer says what must be whole afterwards, what the rest may be, and which object must never
be seen without which other.
"""

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.crash_scripts import APPENDING, LARGE, STAGED

MIB = 1 << 20  # bytes
SIZES = (0, 100, 70_000, 1_000_000, 9_000_000, 20_000_000)  # bytes, of random files
PASSWORD = {"RESTIC_PASSWORD": "secret"}
CALLS = "openat,close,rename,renameat,renameat2"


class Writer(ABC):
    """A tool in the directory `top` of a mount; `seed` names all that is random about it."""

    longest = 2.5  # seconds that it writes until the crash

    def __init__(self, top: Path, scratch: Path, seed: int) -> None:
        self.top, self.scratch, self.seed = top, scratch, seed
        self.generator = random.Random(seed)

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """What is run, and killed with the mount."""

    @abstractmethod
    def check(self, found: Mapping[str, bytes]) -> int:
        """Compare the objects below `top` after everything has been taken up again.

        Returns how many had been acknowledged.
        """

    def check_order(self, names: set[str]) -> None:  # noqa: B027 - cp and tar promise no order
        """Look at the objects there are at any moment."""

    def heard(self, output: str) -> None:  # noqa: B027 - what is traced says nothing
        """Take what the tool printed until its end."""


class Python(Writer):
    """One of the scripts of `crash_scripts`."""

    script = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script, str(self.top), str(self.seed)]


class StagedWriter(Python):
    script = STAGED
    published: tuple[str, ...] = ()

    def heard(self, output: str) -> None:
        self.published = tuple(output.split())

    def check(self, found: Mapping[str, bytes]) -> int:
        whole = dict(self._all(len(self.published) + 2))
        for name in self.published:
            assert found.get(name) == whole[name], f"{name} was published"
        for name, data in found.items():
            if not name.endswith("-tmp-1"):
                assert data == whole[name], f"{name} is not whole"
        self.check_order(set(found))
        return len(self.published)

    def check_order(self, names: set[str]) -> None:
        for name in names:
            if name.startswith("index-") and not name.endswith("-tmp-1"):
                pack = name.replace("index", "pack")
                assert pack in names, f"{name} is seen before {pack}"
                number = int(name.removeprefix("index-"))
                assert number == 0 or f"index-{number - 1}" in names, f"{name} came too early"

    def _all(self, count: int) -> Iterator[tuple[str, bytes]]:
        """Everything the script writes, in its order."""
        generator = random.Random(self.seed)
        for number in range(count):
            data = generator.randbytes(generator.choice([100, 70000, 9000000, 20000000]))
            yield f"pack-{number}", data
            generator.random()
            yield f"index-{number}", f"pack-{number}".encode()
            generator.random()


@dataclass
class _Log:
    data: bytes
    synced: int = 0  # bytes
    closes: list[int] = field(default_factory=list)  # bytes at each


class Appender(Python):
    script = APPENDING
    told: tuple[tuple[str, str, int], ...] = ()

    def heard(self, output: str) -> None:
        lines = [line.split() for line in output.splitlines()]
        self.told = tuple((what, name, int(length)) for what, name, length in lines)

    def check(self, found: Mapping[str, bytes]) -> int:
        logs = self._all(1 + len({name for _, name, _ in self.told}))
        for what, name, length in self.told:
            assert len(found.get(name, b"")) >= length, f"{name}: {what} at {length}"
        for name, data in found.items():
            whole = logs[name]
            assert whole.data.startswith(data), f"{name} is not as it was written"
            told = {length for _, one, length in self.told if one == name}
            may = told | set(whole.closes) | {whole.synced}
            assert len(data) in may, f"{name}: {len(data)} bytes are neither closed nor synced"
        return len(self.told)

    def _all(self, count: int) -> dict[str, _Log]:
        generator, logs = random.Random(self.seed), {}
        for number in range(count):
            log = logs[f"log-{number}"] = _Log(b"")
            pieces: list[bytes] = []
            length = 0
            for _ in range(generator.randrange(1, 4)):
                for _ in range(generator.randrange(1, 12)):
                    size = generator.choice([10, 5000, 400000, 3000000])
                    pieces.append(generator.randbytes(size))
                    length += size
                    if generator.random() < 0.4:
                        log.synced = length
                        log.closes.append(length)  # a synchronized length may be stored too
                log.closes.append(length)
            log.data = b"".join(pieces)
        return logs


class LargeWriter(Python):
    script = LARGE
    longest = 5.0
    closed: tuple[int, ...] = ()  # the number of the file at each close

    def heard(self, output: str) -> None:
        self.closed = tuple(map(int, output.split()))

    def check(self, found: Mapping[str, bytes]) -> int:
        last = max(self.closed, default=-1) + 1
        for number, versions in self._all(last + 1):
            data = found.get(f"large-{number}")
            acknowledged = self.closed.count(number)
            assert data is not None or not acknowledged, f"large-{number} was closed"
            may = versions[max(acknowledged - 1, 0) :]
            assert data is None or data in may, f"large-{number} is not as it was written"
        assert len(found) <= last + 1
        return len(self.closed)

    def _all(self, count: int) -> Iterator[tuple[int, list[bytes]]]:
        """The number of each file, and all that it was when it was closed."""
        generator = random.Random(self.seed)
        for number in range(count):
            data = bytearray(generator.randbytes(generator.choice([40_000_000, 75_000_000])))
            versions = [bytes(data)]
            for _ in range(generator.randrange(3)):
                for _ in range(2):
                    start = generator.randrange(len(data) - 300_000)
                    data[start : start + 300_000] = generator.randbytes(300_000)
                versions.append(bytes(data))
            yield number, versions


class Traced(Writer):
    """A tool that is traced, so that it is known what it was told."""

    @property
    def trace(self) -> Path:
        return self.scratch / f"trace-{self.seed}"

    def traced(self, *command: object) -> list[str]:
        """Return `command`, with its calls noted."""
        return ["strace", "-f", "-qq", "-y", "-s", "4096", "-e", f"trace={CALLS}",
                "-o", str(self.trace), *map(str, command)]  # fmt: skip

    def acknowledged(self) -> tuple[set[str], set[str]]:
        """Return the names that were closed after writing, and those renamed to, below `top`."""
        return _acknowledged(self.trace.read_text(errors="replace"), f"{self.top}/")


class Copying(Traced):
    """cp -r, or tar -x, of a tree of files of all sizes."""

    def __init__(self, top: Path, scratch: Path, seed: int) -> None:
        super().__init__(top, scratch, seed)
        self.source = scratch / f"source-{seed}"
        for number in range(30):
            path = self.source / f"d{number % 4}" / f"f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.generator.randbytes(self.generator.choice(SIZES)))

    @property
    def command(self) -> list[str]:
        return self.traced("cp", "-r", f"{self.source}/.", self.top)

    def check(self, found: Mapping[str, bytes]) -> int:
        closed, _ = self.acknowledged()
        for name in closed:
            assert found.get(name) == (self.source / name).read_bytes(), f"{name} was closed"
        for name, data in found.items():
            assert data == (self.source / name).read_bytes(), f"{name} is not whole"
        return len(closed)


class Extracting(Copying):
    @property
    def command(self) -> list[str]:
        archive = self.scratch / f"archive-{self.seed}.tar"
        subprocess.run(["tar", "-C", self.source, "-cf", archive, "."], check=True)
        return self.traced("tar", "-C", self.top, "-xf", archive)


class Restic(Traced):
    """restic backup of new data into a repository of its own kind."""

    longest = 8.0  # seconds; it thinks for one or two before it writes

    @property
    def command(self) -> list[str]:
        data = self.scratch / f"data-{self.seed}"
        data.write_bytes(self.generator.randbytes(60 * MIB))
        template = self.scratch / "restic"
        if not template.exists():
            init = ["restic", "-r", template, "init"]
            subprocess.run(init, check=True, capture_output=True, env=os.environ | PASSWORD)
        shutil.copytree(template, self.top, dirs_exist_ok=True)
        return self.traced("restic", "-r", self.top, "--no-cache", "--pack-size", "4",
                           "backup", data)  # fmt: skip

    def check(self, found: Mapping[str, bytes]) -> int:
        _, renamed = self.acknowledged()
        for name in renamed:
            assert name in found or name.startswith("locks/"), f"{name} was published"
        for name, data in found.items():
            if name != "config" and "-tmp-" not in name:
                digest = hashlib.sha256(data).hexdigest()
                assert digest == name.rpartition("/")[2], f"{name} is not whole"
        self.check_order(set(found))
        return len(renamed)

    def check_order(self, names: set[str]) -> None:
        if any(name.startswith("snapshots/") and "-tmp-" not in name for name in names):
            assert any(name.startswith("index/") for name in names), "a snapshot without an index"


WRITERS = {
    "staged": StagedWriter,
    "append": Appender,
    "large": LargeWriter,
    "cp": Copying,
    "tar": Extracting,
    "restic": Restic,
}

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?")
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_ENDED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")


def _acknowledged(trace: str, top: str) -> tuple[set[str], set[str]]:
    closed: set[str] = set()
    renamed: set[str] = set()
    written: set[str] = set()
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        if match := _BEGUN.match(line):
            begun[match[1]] = f"{match[1]} {match[2]}({match[3]}"
            continue
        if (match := _ENDED.match(line)) and match[1] in begun:
            line = begun.pop(match[1]) + match[3]
        if (call := _CALL.match(line)) is None or int(call[4]) < 0:
            continue
        if call[2] == "openat":
            if re.search(r"O_WRONLY|O_RDWR", call[3]) and call[5]:
                written.add(call[5])
        elif call[2] == "close":
            path = call[3].partition("<")[2].removesuffix(">")
            if path in written and path.startswith(top):
                closed.add(path.removeprefix(top))
        else:
            new = re.findall(r'"([^"]*)"', call[3])[-1]
            if new.startswith(top):
                renamed.add(new.removeprefix(top))
    return closed, renamed


def free(path: Path) -> None:
    """Remove what a round left in its scratch folder, but for what is made once."""
    for one in path.iterdir():
        if one.name != "restic":
            shutil.rmtree(one) if one.is_dir() else os.unlink(one)

"""One run: a server, buckets with data, contenders, and the figures that they reach."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, Protocol

from servers.seaweedfs import SeaweedFS

from backgate.gateway.units import GIB, MIB
from benchmarks.contenders import Contender, Mounted
from benchmarks.machine import drop_caches
from benchmarks.peers import Backgate, Rclone, S3fs

P = ParamSpec("P")

PASSWORD = "benchmark"  # of the restic repository


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work a run is."""

    rounds: int = 3
    object: int = GIB  # bytes of the object that is read, and of the file that is written
    random_reads: int = 64
    objects: int = 100_000  # that are listed
    many: int = 1_000_000  # that are listed where nothing but listing is measured
    flat: int = 100_000  # files of one directory there
    small_files: int = 2_000  # that are written
    restic_file: int = 500 * MIB  # bytes
    restic_files: int = 5_000
    disk_file: int = 300 * MIB  # bytes
    disk_files: int = 20_000
    backup: int = 2_000_000_000  # bytes that restic backs up
    stream: int = 4 * GIB  # bytes of one file that is written from start to end
    files: int = 10_000  # small files that are written and removed, and objects that are pruned


QUICK = Sizes(
    rounds=1,
    object=256 * MIB,
    objects=5_000,
    many=20_000,
    flat=5_000,
    small_files=200,
    restic_file=100 * MIB,
    restic_files=1_000,
    disk_file=50 * MIB,
    disk_files=2_000,
    backup=200_000_000,
    stream=512 * MIB,
    files=1_000,
)


@dataclass(slots=True)
class Figure:
    """What one contender reached in one measurement, round by round."""

    values: list[float] = field(default_factory=list)
    peak: int = 0  # bytes resident at most, over all rounds

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(slots=True)
class Measurement:
    """One line of questions: the same work, done by each contender."""

    title: str
    unit: str  # "MB/s": more is better; "s", "ms": less is
    figures: dict[str, Figure] = field(default_factory=dict)  # by contender's name
    note: str = ""

    @property
    def more_is_better(self) -> bool:
        return self.unit.endswith("/s")

    def add(self, name: str, value: float, peak: int = 0) -> None:
        figure = self.figures.setdefault(name, Figure())
        figure.values.append(value)
        figure.peak = max(figure.peak, peak)
        print(f"  {self.title}: {name}: {value:.4g} {self.unit}", flush=True)


class Scenario(Protocol):
    """Some data, and some measurements on them."""

    name: str  # for the command line

    def run(self, bench: "Bench") -> list[Measurement]:
        """Make the data, measure every contender in turn, and return the figures."""


class Bench:
    """What scenarios work with."""

    def __init__(self, server: SeaweedFS, home: Path, sizes: Sizes) -> None:
        self.server, self.home, self.sizes = server, home, sizes
        self.load = os.getloadavg()[0]  # processes that ran or wanted to, over the minute before
        self.password = home / "password"
        self.password.touch(mode=0o600)
        self.password.write_text(PASSWORD)
        secrets = {"restic": f"file:{self.password}"}
        self.backgate = Backgate(home / "backgate", server, secrets)
        self.mounts: list[Contender] = [
            self.backgate,
            Rclone(home / "rclone", server, "off"),
            Rclone(home / "rclone-full", server, "full"),
            S3fs(home / "s3fs", server, caches=False),
            S3fs(home / "s3fs-cache", server, caches=True),
        ]
        self.contenders: dict[str, Contender] = {one.name: one for one in self.mounts}

    def rounds(self) -> Iterator[int]:
        return iter(range(self.sizes.rounds))

    def in_turn(self, contenders: list[Contender], number: int) -> list[Contender]:
        """Return the contenders in another order each round: nobody always comes first."""
        first = number % len(contenders)
        return contenders[first:] + contenders[:first]

    @contextmanager
    def cold(self, contender: Contender, bucket: str) -> Iterator[Mounted]:
        """Mount with nothing cached anywhere."""
        self.contenders[contender.name] = contender
        contender.forget()
        drop_caches()
        with contender.mounted(bucket) as mounted:
            yield mounted
        contender.forget()

    def random_file(self, name: str, size: int) -> Path:
        """Return a local file of `size` bytes that do not compress; kept for the whole run."""
        path = self.home / "data" / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(0, size, MIB):
                    file.write(os.urandom(MIB))
        return path

    def object_of(self, bucket: str, key: str, size: int) -> None:
        """Put an object of random bytes; made once."""
        client = self.server.client()
        names = [one["Name"] for one in client.list_buckets()["Buckets"]]
        if bucket not in names:
            self.server.bucket(bucket)
            client.upload_file(str(self.random_file(key, size)), bucket, key)
        client.close()


def seconds(work: Callable[P, object], *arguments: P.args, **named: P.kwargs) -> float:
    """Return how long `work` takes."""
    begun = time.monotonic()
    work(*arguments, **named)
    return time.monotonic() - begun

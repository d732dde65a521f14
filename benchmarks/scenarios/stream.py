"""One long file, written from start to end, as a dump is; and what of it lies on the local disk."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backgate.gateway.units import MIB
from benchmarks.bench import Bench, Measurement
from benchmarks.buckets import Bucket
from benchmarks.contenders import Contender
from benchmarks.peers import Backgate, Rclone, S3fs

SMALL_SPOOL = "256 MiB"
PER_SECOND = 1_000_000  # bytes
LOOK_EVERY = 0.2  # seconds between two looks at the local disk
NAME = "stream"
NOTE = "files below the contender's folder; those of s3fs have no name and are not seen"


class Stream:
    """`cat` of a file into the mount, until it is in the store."""

    name = "stream"

    def run(self, bench: Bench) -> list[Measurement]:
        size = bench.sizes.stream
        file = bench.random_file("stream", size)
        speed = Measurement(f"writing one file of {size // MIB} MiB", "MB/s")
        title = f"local disk taken while {size // MIB} MiB are written"
        disk = Measurement(title, "MiB", note=NOTE)
        contenders: list[Contender] = [
            bench.backgate,
            Backgate(bench.home / "backgate-small", bench.server, {}, spool=SMALL_SPOOL),
            Rclone(bench.home / "rclone-stream", bench.server, "writes"),
            S3fs(bench.home / "s3fs-stream", bench.server, caches=False),
        ]
        for number in bench.rounds():
            for turn, contender in enumerate(bench.in_turn(contenders, number)):
                bucket = Bucket(bench.server, f"stream-{number}-{turn}")
                with bench.cold(contender, bucket.name) as mounted, _watched(contender) as peak:
                    begun = time.monotonic()
                    with file.open("rb") as source, (mounted.root / NAME).open("wb") as target:
                        subprocess.run(["cat"], stdin=source, stdout=target, check=True)
                    if not contender.stores_on_close:
                        bucket.wait_until_stored({NAME: size})
                    took = time.monotonic() - begun
                bucket.check({NAME: size})
                speed.add(contender.name, size / PER_SECOND / took, mounted.peak)
                disk.add(contender.name, max(peak) / MIB)
                bucket.remove()
        return [speed, disk]


@contextmanager
def _watched(contender: Contender) -> Iterator[list[int]]:
    """Note how many bytes a contender's own folder takes on disk, now and then."""
    found, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(LOOK_EVERY):
            found.append(_taken(contender.home))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def _taken(folder: Path) -> int:
    """Return the bytes that a folder's files take, but for what is mounted in it."""
    command = ["du", "--one-file-system", "--summarize", "--block-size=1", str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return int(output.split()[0]) if output else 0

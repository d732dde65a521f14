"""`restic backup` of two gigabytes to a path, against restic's own S3 backend."""

import os
import shutil
import time
from pathlib import Path

from backgate.gateway.units import MIB
from benchmarks.bench import Bench, Measurement
from benchmarks.buckets import Bucket, files_below
from benchmarks.entrants import Entrant, as_advised
from benchmarks.machine import drop_caches
from benchmarks.peers import Rclone, S3fs, restic, restic_environment

FILES = 8  # that the bytes are in
PER_SECOND = 1_000_000  # bytes
NOTE = "until all is in the bucket, which for rclone is later than restic's end"


class Backup:
    """The first backup into a new repository, each time into a bucket of its own."""

    name = "backup"

    def run(self, bench: Bench) -> list[Measurement]:
        size = bench.sizes.backup
        source = _source(bench, size)
        measured = Measurement(f"`restic backup` of {size // PER_SECOND} MB", "MB/s", note=NOTE)
        entrants = [
            Entrant(bench.backgate),
            as_advised(bench, "backgate-advised"),
            as_advised(bench, "backgate-writeback", writeback=True),
            Entrant(Rclone(bench.home / "rclone-backup", bench.server, "writes")),
            Entrant(S3fs(bench.home / "s3fs-backup", bench.server, caches=False)),
            Entrant(None),
        ]
        for number in bench.rounds():
            for turn in range(len(entrants)):
                entrant = entrants[(turn + number) % len(entrants)]
                bucket = Bucket(bench.server, f"backup-{number}-{turn}")
                took, peak = _measured(bench, entrant, bucket, source)
                measured.add(entrant.name, size / PER_SECOND / took, peak)
                bucket.remove()
        return [measured]


def _measured(bench: Bench, entrant: Entrant, bucket: Bucket, source: Path) -> tuple[float, int]:
    """Return the seconds that a backup takes, and the memory of who shows the bucket."""
    if entrant.contender is None:
        drop_caches()
        address = f"s3:{bench.server.endpoint_url}/{bucket.name}"
        return _backed_up(bench, bucket, address, source), 0
    with bench.cold(entrant.contender, bucket.name) as mounted:
        took = _backed_up(bench, bucket, str(mounted.root), source, entrant.options)
    return took, mounted.peak


def _source(bench: Bench, size: int) -> Path:
    """Return a directory of files that do not compress."""
    folder = bench.home / "data" / "backup"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        with (folder / f"{number}").open("wb") as file:
            for at in range(0, size // FILES, MIB):
                file.write(os.urandom(min(MIB, size // FILES - at)))
    return folder


def _backed_up(
    bench: Bench,
    bucket: Bucket,
    repository: str,
    source: Path,
    options: tuple[str, ...] = (),
) -> float:
    """Make a repository, which is not measured; return the seconds until a backup is stored."""
    cache = bench.home / "restic-cache"
    environment = restic_environment(bench.server, bucket.name, bench.password, cache)
    environment |= {"RESTIC_REPOSITORY": repository}
    restic(environment, "init")
    begun = time.monotonic()
    restic(environment, *options, "backup", "--quiet", str(source))
    if os.path.isdir(repository):
        bucket.wait_until_stored(files_below(Path(repository)))
    took = time.monotonic() - begun
    restic(environment, "check")
    shutil.rmtree(cache, ignore_errors=True)
    return took

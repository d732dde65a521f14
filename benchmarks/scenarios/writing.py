"""One large file and many small ones, written through the mount until they are in the store."""

import shutil
import time
from pathlib import Path

from backgate.gateway.units import KIB, MIB
from benchmarks.bench import Bench, Measurement
from benchmarks.buckets import Bucket
from benchmarks.contenders import Contender, Mounted
from benchmarks.scenarios.sequential import MEGABYTE

BUCKET = "written"
SMALL = 16 * KIB  # bytes of a small file
NOTE = (
    "until the objects are in the bucket; with close alone for `rclone, cache full`, whose close "
    "returns before that, in brackets"
)


class Writing:
    """`cp` into the mount: a file ends with close, and counts when it is in the bucket."""

    name = "writing"

    def run(self, bench: Bench) -> list[Measurement]:
        sizes = bench.sizes
        bucket = Bucket(bench.server, BUCKET)
        large = bench.random_file("object", sizes.object)
        small = _small_files(bench, sizes.small_files)
        one = Measurement(f"writing {sizes.object // MIB} MiB", "MB/s")
        many = Measurement(f"writing {sizes.small_files} files of {SMALL // KIB} KiB", "s")
        for number in bench.rounds():
            for contender in bench.in_turn(bench.mounts, number):
                with bench.cold(contender, BUCKET) as mounted:
                    prefix = f"{contender.home.name}-{number}"
                    (mounted.root / prefix).mkdir()
                    took_large = _copied(bucket, contender, mounted, [large], prefix)
                    took_small = _copied(bucket, contender, mounted, small, prefix)
                one.add(contender.name, sizes.object / MEGABYTE / took_large, mounted.peak)
                many.add(contender.name, took_small, mounted.peak)
                bucket.empty()
        return [one, many]


def _small_files(bench: Bench, count: int) -> list[Path]:
    folder = bench.home / "data" / "small"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"f{number:05}" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(number.to_bytes(4, "little") * (SMALL // 4))
    return files


def _copied(
    bucket: Bucket, contender: Contender, mounted: Mounted, files: list[Path], prefix: str
) -> float:
    """Return the seconds until all `files` are in the store."""
    expected = {f"{prefix}/{file.name}": file.stat().st_size for file in files}
    begun = time.monotonic()
    for file in files:
        shutil.copyfile(file, mounted.root / prefix / file.name)
    if not contender.stores_on_close:
        bucket.wait_until_stored(expected)
    took = time.monotonic() - begun
    bucket.check(expected)
    return took

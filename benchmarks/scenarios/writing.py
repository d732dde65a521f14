"""One large file and many small ones, written through the mount until they are in the store."""

import shutil
import time
from pathlib import Path
from typing import Any

from backgate.gateway.units import KIB, MIB
from benchmarks.bench import Bench, Measurement
from benchmarks.contenders import Contender, Mounted
from benchmarks.scenarios.sequential import MEGABYTE

BUCKET = "written"
SMALL = 16 * KIB  # bytes of a small file
STORED_WITHIN = 300.0  # seconds
LOOK_EVERY = 0.1  # seconds between two looks into the bucket
NOTE = (
    "until the objects are in the bucket; with close alone for `rclone, cache full`, whose close "
    "returns before that, in brackets"
)


class Writing:
    """`cp` into the mount: a file ends with close, and counts when it is in the bucket."""

    name = "writing"

    def run(self, bench: Bench) -> list[Measurement]:
        sizes = bench.sizes
        bench.server.bucket(BUCKET)
        large = bench.random_file("object", sizes.object)
        small = _small_files(bench, sizes.small_files)
        one = Measurement(f"writing {sizes.object // MIB} MiB", "MB/s")
        many = Measurement(f"writing {sizes.small_files} files of {SMALL // KIB} KiB", "s")
        for number in bench.rounds():
            for contender in bench.in_turn(bench.mounts, number):
                with bench.cold(contender, BUCKET) as mounted:
                    prefix = f"{contender.home.name}-{number}"
                    (mounted.root / prefix).mkdir()
                    took_large = _copied(bench, contender, mounted, [large], prefix)
                    took_small = _copied(bench, contender, mounted, small, prefix)
                one.add(contender.name, sizes.object / MEGABYTE / took_large, mounted.peak)
                many.add(contender.name, took_small, mounted.peak)
                _empty(bench)
        return [one, many]


def _small_files(bench: Bench, count: int) -> list[Path]:
    folder = bench.home / "data" / "small"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"f{number:05}" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(number.to_bytes(4, "little") * (SMALL // 4))
    return files


def _copied(
    bench: Bench, contender: Contender, mounted: Mounted, files: list[Path], prefix: str
) -> float:
    """Return the seconds until all `files` are in the store."""
    begun = time.monotonic()
    for file in files:
        shutil.copyfile(file, mounted.root / prefix / file.name)
    if not contender.stores_on_close:
        _wait_until_stored(bench, files, prefix)
    took = time.monotonic() - begun
    _check_stored(bench, files, prefix)
    return took


def _wait_until_stored(bench: Bench, files: list[Path], prefix: str) -> None:
    until = time.monotonic() + STORED_WITHIN
    while len(_stored(bench, files, prefix)) < len(files) and time.monotonic() < until:
        time.sleep(LOOK_EVERY)


def _check_stored(bench: Bench, files: list[Path], prefix: str) -> None:
    missing = len(files) - len(_stored(bench, files, prefix))
    if missing:
        raise RuntimeError(f"{missing} of {len(files)} files are not in the bucket")


def _stored(bench: Bench, files: list[Path], prefix: str) -> set[str]:
    """Return the names of those `files` that are in the bucket whole."""
    expected = {f"{prefix}/{file.name}": file.stat().st_size for file in files}
    found = {one["Key"]: one["Size"] for one in _objects(bench)}
    return {key for key, size in expected.items() if found.get(key) == size}


def _objects(bench: Bench) -> list[dict[str, Any]]:
    client = bench.server.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    objects = [one for page in pages for one in page.get("Contents", [])]
    client.close()
    return objects


def _empty(bench: Bench) -> None:
    client = bench.server.client()
    keys = [{"Key": one["Key"]} for one in _objects(bench)]
    for first in range(0, len(keys), 1000):
        client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys[first : first + 1000]})
    client.close()

"""Many small files: written one after the other, written in parallel, and removed."""

import subprocess
import time
from pathlib import Path

from backgate.gateway.units import KIB
from benchmarks.bench import Bench, Measurement, seconds
from benchmarks.buckets import Bucket
from benchmarks.contenders import Contender, Mounted
from benchmarks.machine import program
from benchmarks.peers import Rclone, S3fs

SMALL = 16 * KIB  # bytes of a file
PER_DIRECTORY = 100  # files
AT_ONCE = 16  # files that a tool which writes in parallel has open
NOTE = "until all are in the bucket"


class Files:
    """`cp -r`, `rclone copy` and `rm -r` of a tree."""

    name = "files"

    def run(self, bench: Bench) -> list[Measurement]:
        count = bench.sizes.files
        source = _source(bench, count)
        title = f"{count} files of {SMALL // KIB} KiB"
        one = Measurement(f"`cp -r` of {title}", "s", note=NOTE)
        many = Measurement(f"`rclone copy --transfers {AT_ONCE}` of {title}", "s", note=NOTE)
        gone = Measurement(f"`rm -r` of {title}", "s")
        contenders: list[Contender] = [
            bench.backgate,
            Rclone(bench.home / "rclone-files", bench.server, "writes"),
            S3fs(bench.home / "s3fs-files", bench.server, caches=False),
        ]
        for number in bench.rounds():
            for turn, contender in enumerate(bench.in_turn(contenders, number)):
                bucket = Bucket(bench.server, f"files-{number}-{turn}")
                with bench.cold(contender, bucket.name) as mounted:
                    took_one = _written(bucket, mounted, source, "one", ["cp", "-r"])
                    took_gone = seconds(_remove, mounted.root / "one")
                    took_many = _written(bucket, mounted, source, "many", _rclone(bench))
                one.add(contender.name, took_one, mounted.peak)
                many.add(contender.name, took_many, mounted.peak)
                gone.add(contender.name, took_gone)
                bucket.remove()
        return [one, many, gone]


def _source(bench: Bench, count: int) -> Path:
    folder = bench.home / "data" / "files"
    for number in range(count):
        directory = folder / f"d{number // PER_DIRECTORY:04}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:06}").write_bytes(number.to_bytes(4, "little") * (SMALL // 4))
    return folder


def _written(
    bucket: Bucket, mounted: Mounted, source: Path, name: str, command: list[str]
) -> float:
    """Return the seconds until a copy of the tree is in the store as `name`."""
    expected = {
        f"{name}/{path.relative_to(source)}": SMALL for path in source.rglob("*") if path.is_file()
    }
    begun = time.monotonic()
    subprocess.run([*command, str(source), str(mounted.root / name)], check=True)
    bucket.wait_until_stored(expected)
    return time.monotonic() - begun


def _rclone(bench: Bench) -> list[str]:
    config = bench.home / "rclone.conf"
    config.touch()
    return [
        program("rclone"),
        f"--config={config}",
        "copy",
        "--no-update-dir-modtime",
        f"--transfers={AT_ONCE}",
    ]


def _remove(path: Path) -> None:
    subprocess.run(["rm", "-r", str(path)], check=True)

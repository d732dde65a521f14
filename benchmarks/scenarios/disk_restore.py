"""Files copied out of a disk of a VM backup, against the ways there are without Backgate."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backgate.gateway.units import MIB
from benchmarks.bench import Bench, Measurement, seconds
from benchmarks.contenders import Mounted
from benchmarks.machine import drop_caches, program
from benchmarks.peers import rclone_environment
from benchmarks.report import US
from benchmarks.scenarios.disk_data import (
    LARGE,
    PARTITION_AT,
    TREE,
    DiskData,
    decode_chain,
    make_disk,
)

BUCKET = "disks"
CHAIN = "each member of a chain is an alias, a footer, a header, a table and a list of filters"
OURS = US  # a file, or a walk, below partitions/
RAW = "the same bytes of its disk.raw"
DOWNLOAD = "rclone copy of the chain, decoded, by loop"
LOOP = "the kernel, by loop on its disk.raw"


class DiskRestore:
    """One large file, a walk, and what the first byte costs; each from a fresh mount."""

    name = "disks"

    def run(self, bench: Bench) -> list[Measurement]:
        sizes = bench.sizes
        large = bench.random_file("disk-large", sizes.disk_file)
        data = make_disk(bench.home, large, sizes.disk_files)
        _upload(bench, data)
        size = sizes.disk_file // MIB
        copy = Measurement(f"VM disk: a file of {size} MiB out of an ext4 partition", "s")
        walk = Measurement(f"VM disk: `find` with stat over {sizes.disk_files} files", "s")
        again = Measurement(f"VM disk: the same `find` again, {sizes.disk_files} files", "s")
        first = Measurement("VM disk: from mount to the first byte of a file", "s")
        cost = Measurement("VM disk: requests to the store", "requests", note=CHAIN)
        for _ in bench.rounds():
            self._copies(bench, data, copy)
            self._walks(bench, data, walk, again)
            self._first_byte(bench, first, cost)
        return [copy, walk, again, first, cost]

    def _copies(self, bench: Bench, data: DiskData, copy: Measurement) -> None:
        target = bench.home / "restored"
        with bench.cold(bench.backgate, BUCKET) as mounted:
            took = seconds(_cp, _partition(mounted) / LARGE, target)
        _same(data.files / LARGE, target)
        copy.add(OURS, took, mounted.peak)
        with bench.cold(bench.backgate, BUCKET) as mounted:
            took = seconds(_dd, _disk(mounted) / "disk.raw", data.stretches, target)
        _same(data.files / LARGE, target)
        copy.add(RAW, took, mounted.peak)
        drop_caches()
        copy.add(DOWNLOAD, seconds(_download, bench, target))
        _same(data.files / LARGE, target)

    def _walks(self, bench: Bench, data: DiskData, walk: Measurement, again: Measurement) -> None:
        expected = _find(data.files / TREE)
        with bench.cold(bench.backgate, BUCKET) as mounted:
            top = _partition(mounted) / TREE
            for measurement in (walk, again):
                begun = time.monotonic()
                assert _find(top) == expected
                measurement.add(OURS, time.monotonic() - begun)
        with (
            bench.cold(bench.backgate, BUCKET) as mounted,
            _by_loop(_disk(mounted) / "disk.raw", bench.home / "loop") as top,
        ):
            for measurement in (walk, again):
                begun = time.monotonic()
                assert _find(top / TREE) == expected
                measurement.add(LOOP, time.monotonic() - begun)

    def _first_byte(self, bench: Bench, first: Measurement, cost: Measurement) -> None:
        with bench.cold(bench.backgate, BUCKET) as mounted:
            before = _requests(bench)
            partition = _partition(mounted)
            os.listdir(partition)
            listed = _requests(bench)
            files = sorted((partition / TREE / "d000").iterdir())
            begun = _requests(bench)
            files[0].read_bytes()
            first.add(OURS, time.monotonic() - mounted.begun)
            cost.add("open the disk, list its root", listed - before)
            cost.add("then list a directory of 100 files", begun - listed)
            cost.add("then read a small file", _requests(bench) - begun)


def _disk(mounted: Mounted) -> Path:
    subject = next(iter((mounted.root.parent / "backups" / "xen-orchestra").iterdir()))
    return next(iter((subject / "latest" / "disks").iterdir()))


def _partition(mounted: Mounted) -> Path:
    return next(iter((_disk(mounted) / "partitions").iterdir()))


def _upload(bench: Bench, data: DiskData) -> None:
    bench.server.bucket(BUCKET)
    _rclone(bench, str(data.repository), f":s3:{BUCKET}")


def _rclone(bench: Bench, source: str, target: str) -> None:
    config = bench.home / "rclone.conf"
    config.touch()
    command = [program("rclone"), "copy", source, target, "--config", str(config)]
    command += ["--transfers", "16", "--fast-list"]
    environment = {**os.environ, **rclone_environment(bench.server)}
    subprocess.run(command, env=environment, check=True)


def _download(bench: Bench, target: Path) -> None:
    """What an administrator does who has rclone, a decoder of VHD directories, and root."""
    copy, image = bench.home / "downloaded", bench.home / "downloaded.raw"
    _rclone(bench, f":s3:{BUCKET}", str(copy))
    decode_chain(copy, image)
    with _by_loop(image, bench.home / "loop") as top:
        _cp(top / LARGE, target)
    shutil.rmtree(copy)
    image.unlink()


@contextmanager
def _by_loop(image: Path, mountpoint: Path) -> Iterator[Path]:
    mountpoint.mkdir(exist_ok=True)
    options = f"loop,ro,noload,offset={PARTITION_AT}"
    subprocess.run(["mount", "-o", options, str(image), str(mountpoint)], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", str(mountpoint)], check=True)


def _cp(path: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    subprocess.run(["cp", str(path), str(target)], check=True)


def _dd(image: Path, stretches: list[tuple[int, int]], target: Path) -> None:
    with image.open("rb", buffering=0) as source, target.open("wb") as file:
        for offset, length in stretches:
            source.seek(offset)
            while length > 0:
                piece = source.read(min(length, MIB))
                file.write(piece)
                length -= len(piece)


def _find(top: Path) -> list[str]:
    command = ["find", ".", "-printf", "%P %s %Y\n"]
    output = subprocess.run(command, cwd=top, capture_output=True, text=True, check=True).stdout
    return sorted(line for line in output.splitlines() if line.endswith("f"))


def _same(path: Path, other: Path) -> None:
    size = str(path.stat().st_size)
    subprocess.run(["cmp", "-n", size, str(path), str(other)], check=True)


def _requests(bench: Bench) -> int:
    (status,) = bench.backgate.gateway.json("status", "store")  # type: ignore[misc]
    return sum(status["requests"].values())

"""Files copied out of a restic snapshot by mount, against restic's own mount."""

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

from backgate.gateway.units import KIB, MIB
from benchmarks.bench import Bench, Measurement, seconds
from benchmarks.contenders import Contender
from benchmarks.peers import Backgate, ResticMount, restic, restic_environment

BUCKET = "restic"
LARGE, TREE = "large", "tree"
PER_DIRECTORY = 50  # files
LONGEST = 32 * KIB  # bytes of a file in the tree


class ResticRestore:
    """`cp` of one large file, and of a tree of small ones, each from a fresh mount."""

    name = "restic"

    def run(self, bench: Bench) -> list[Measurement]:
        sizes = bench.sizes
        source = _back_up(bench)
        contenders: list[Contender] = [
            bench.backgate,
            ResticMount(bench.home / "restic-mount", bench.server, bench.password),
        ]
        one = Measurement(f"restic: `cp` of a file of {sizes.restic_file // MIB} MiB", "s")
        tree = Measurement(f"restic: `cp -r` of {sizes.restic_files} files", "s")
        ready = Measurement("restic: from mount to the first `ls` of the snapshot", "s")
        for number in bench.rounds():
            for contender in bench.in_turn(contenders, number):
                for measurement, name in ((one, LARGE), (tree, TREE)):
                    with bench.cold(contender, BUCKET) as mounted:
                        snapshot = _snapshot(contender, mounted.root, source)
                        os.listdir(snapshot)
                        took_ready = time.monotonic() - mounted.begun
                        took = seconds(_copy, snapshot / name, bench.home / "restored")
                    _compare(source / name, bench.home / "restored")
                    _remove(bench.home / "restored")
                    measurement.add(contender.name, took, mounted.peak)
                ready.add(contender.name, took_ready)
        return [one, tree, ready]


def _back_up(bench: Bench) -> Path:
    """Make the files and a repository with one snapshot of them."""
    source = bench.home / "data" / "restic"
    if source.exists():
        return source
    choice = random.Random(0)
    for number in range(bench.sizes.restic_files):
        directory = source / TREE / f"d{number // PER_DIRECTORY:03}"
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"f{number:05}"
        file.write_bytes(choice.randbytes(choice.randrange(LONGEST)))
    shutil.copyfile(bench.random_file("restic-large", bench.sizes.restic_file), source / LARGE)
    bench.server.bucket(BUCKET)
    cache = bench.home / "restic-backup-cache"
    environment = restic_environment(bench.server, BUCKET, bench.password, cache)
    for arguments in (["init"], ["backup", "--quiet", str(source)]):
        restic(environment, *arguments)
    shutil.rmtree(cache, ignore_errors=True)
    return source


def _snapshot(contender: Contender, root: Path, source: Path) -> Path:
    """Return where the mount shows the directory that was backed up."""
    if isinstance(contender, Backgate):
        subject = next(iter((root.parent / "backups" / "restic").iterdir()))
        return subject / "latest" / source.relative_to("/")
    return root / "snapshots" / "latest" / source.relative_to("/")


def _copy(path: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", str(path), str(target)], check=True)


def _compare(path: Path, other: Path) -> None:
    subprocess.run(["diff", "-rq", str(path), str(other)], check=True)


def _remove(path: Path) -> None:
    subprocess.run(["rm", "-rf", str(path)], check=True)

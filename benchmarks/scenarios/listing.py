"""Many objects: how soon a mount answers, and how long `find` takes."""

import os
import subprocess
import time
from pathlib import Path

from benchmarks.bench import Bench, Measurement, seconds
from benchmarks.machine import program
from benchmarks.peers import rclone_environment

BUCKET = "many"
PER_DIRECTORY = 100  # objects
FIND_MAX = 60.0  # seconds; who takes longer is not waited for, and not asked again
TRANSFERS = "32"  # files that rclone puts side by side


class Listing:
    """`ls` of the root right after mounting, then `find` twice, then both after a new mount."""

    name = "listing"

    def run(self, bench: Bench) -> list[Measurement]:
        count = bench.sizes.objects
        _fill(bench, count)
        first = Measurement(f"from mount to the first `ls`, {count} objects, nothing cached", "s")
        cold = Measurement(f"`find` over {count} objects, cold", "s")
        warm = Measurement(f"`find` over {count} objects, again", "s")
        again = Measurement("from a second mount to the first `ls`", "s")
        remounted = Measurement("`find` after that second mount", "s")
        remounted.note = "what a cache on disk is worth"
        cold.note = f"after {FIND_MAX:.0f} s `find` is ended; so much says that it takes longer"
        slow: set[str] = set()
        for number in bench.rounds():
            for contender in bench.in_turn(bench.mounts, number):
                with bench.cold(contender, BUCKET) as mounted:
                    first.add(contender.name, _listed(mounted.root, mounted.begun))
                    cold.add(contender.name, seconds(_find, mounted.root, count), mounted.peak)
                    if cold.figures[contender.name].values[-1] >= FIND_MAX:
                        slow.add(contender.name)
                    else:
                        warm.add(contender.name, seconds(_find, mounted.root, count))
        for number in bench.rounds():
            for contender in bench.in_turn(bench.mounts, number):
                if contender.name in slow:
                    continue
                contender.forget()
                with contender.mounted(BUCKET) as mounted:
                    _find(mounted.root, count)
                with contender.mounted(BUCKET) as mounted:
                    again.add(contender.name, _listed(mounted.root, mounted.begun))
                    took = seconds(_find, mounted.root, count)
                remounted.add(contender.name, took, mounted.peak)
                contender.forget()
        return [first, cold, warm, again, remounted]


def _listed(root: Path, begun: float) -> float:
    if not os.listdir(root):
        raise RuntimeError(f"{root} is empty")
    return time.monotonic() - begun


def _find(root: Path, count: int) -> None:
    command = ["find", str(root), "-type", "f", "-printf", "."]
    try:
        result = subprocess.run(command, capture_output=True, check=True, timeout=FIND_MAX)
    except subprocess.TimeoutExpired:
        return
    if len(result.stdout) != count:
        raise RuntimeError(f"find saw {len(result.stdout)} files of {count} in {root}")


def _fill(bench: Bench, count: int) -> None:
    client = bench.server.client()
    names = [one["Name"] for one in client.list_buckets()["Buckets"]]
    client.close()
    if BUCKET in names:
        return
    bench.server.bucket(BUCKET)
    folder = bench.home / "data" / "many"
    for number in range(count):
        directory = folder / f"d{number // PER_DIRECTORY:04}"
        if number % PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"f{number:06}").write_bytes(b"%016d" % number)
    command = [program("rclone"), "copy", str(folder), f":s3:{BUCKET}", "--transfers", TRANSFERS]
    command += ["--s3-no-head", "--no-traverse", "--no-check-dest", "--s3-no-check-bucket"]
    environment = {**os.environ, **rclone_environment(bench.server)}
    subprocess.run(command, env=environment, check=True)

"""A million objects: what a listing costs that somebody asked for before."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, Measurement
from benchmarks.contenders import Contender
from benchmarks.machine import drop_caches
from benchmarks.peers import Backgate, Rclone, S3fs

BUCKET = "many"
FILES = 1000  # in each directory of the tree
FIND_MAX = 300.0  # seconds; who takes longer is ended, and the rest reckoned from how far it came
UNTOLD = 4096  # files that a `find` may have found and not yet said, for its output is buffered
LS_MAX = 60.0  # seconds
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class ListingServer:
    """A running `benchmarks.listing_server`, as contenders take a server."""

    endpoint_url: str
    access_key: str = "many"
    secret_key: str = "objects"

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class Many:
    """`find` over a tree and `ls` of a large directory: first, again, and after a new mount."""

    name = "many"

    def run(self, bench: Bench) -> list[Measurement]:
        count, flat = bench.sizes.many, bench.sizes.flat
        cold = Measurement(f"`find` over {count} objects, nothing cached", "s")
        warm = Measurement(f"`find` over {count} objects, again", "s")
        later = Measurement(f"`find` over {count} objects, after a second mount", "s")
        first = Measurement(f"`ls` of a directory of {flat} files, nothing cached", "s")
        second = Measurement(f"`ls` of a directory of {flat} files, again", "s")
        cold.note = (
            f"a server that only lists; who takes longer than {FIND_MAX:.0f} s is ended, "
            "and the figure is what it takes at least, from how far it came"
        )
        with _server(count // FILES, FILES, flat) as server:
            home = bench.home / "many"
            contenders: list[Contender] = [
                Backgate(home / "backgate", server, {}),
                Rclone(home / "rclone", server, "off"),
                S3fs(home / "s3fs", server, caches=False),
            ]
            for number in bench.rounds():
                for contender in bench.in_turn(contenders, number):
                    contender.forget()
                    drop_caches()
                    name = contender.name
                    with contender.mounted(BUCKET) as mounted:
                        large, tree = mounted.root / "flat", mounted.root / "tree"
                        first.add(name, _listed(large, flat))
                        second.add(name, _listed(large, flat))
                        took = _found(tree, count)
                        cold.add(name, took)
                        contender.settled()
                        if took < FIND_MAX:
                            warm.add(name, _found(tree, count))
                    cold.figures[name].peak = max(cold.figures[name].peak, mounted.peak)
                    if took < FIND_MAX:
                        with contender.mounted(BUCKET) as mounted:
                            later.add(name, _found(mounted.root / "tree", count))
        return [first, second, cold, warm, later]


@contextmanager
def _server(directories: int, files: int, flat: int) -> Iterator[ListingServer]:
    command = [sys.executable, "-m", "benchmarks.listing_server"]
    command += [str(directories), str(files), str(flat)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield ListingServer(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.terminate()


def _listed(folder: Path, count: int) -> float:
    """Return the seconds that `ls` takes, or the most that it is given."""
    begun = time.monotonic()
    command = ["ls", "-f", str(folder)]
    try:
        result = subprocess.run(command, capture_output=True, check=True, timeout=LS_MAX)
    except subprocess.TimeoutExpired:
        return LS_MAX
    took = time.monotonic() - begun
    if len(result.stdout.split()) != count + 2:
        raise RuntimeError(f"ls saw {len(result.stdout.split()) - 2} files of {count} in {folder}")
    return took


def _found(folder: Path, count: int) -> float:
    """Return the seconds that `find` takes; where it was ended, those that it takes at least."""
    command = ["find", str(folder), "-type", "f", "-printf", "."]
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        output, _ = process.communicate(timeout=FIND_MAX)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate()
        return (time.monotonic() - begun) * count / (len(output) + UNTOLD)
    if len(output) != count:
        raise RuntimeError(f"find saw {len(output)} files of {count} in {folder}")
    return time.monotonic() - begun

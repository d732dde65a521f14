"""`borg compact` of thousands of segments that nothing needs: it reads each, and removes it."""

import os
import subprocess
from pathlib import Path

from support.tools import tool

from backgate.gateway.units import KIB
from benchmarks.bench import Bench, Measurement, seconds
from benchmarks.buckets import Bucket
from benchmarks.contenders import Contender
from benchmarks.peers import Rclone, S3fs

SEGMENT = 16 * KIB  # bytes of each; one chunk, for the number of files is what is measured
LEFT_MAX = 10  # segments that hold the manifest and commits


class Compact:
    """The repository is made locally and put beside the mount; what is measured empties it."""

    name = "compact"

    def run(self, bench: Bench) -> list[Measurement]:
        count = bench.sizes.files
        environment = {
            "BORG_BASE_DIR": str(bench.home / "borg"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        segments = _repository(bench, environment, count)
        measured = Measurement(f"`borg compact` of {count} segments", "s")
        contenders: list[Contender] = [
            bench.backgate,
            Rclone(bench.home / "rclone-compact", bench.server, "writes"),
            S3fs(bench.home / "s3fs-compact", bench.server, caches=False),
        ]
        for number in bench.rounds():
            for turn, contender in enumerate(bench.in_turn(contenders, number)):
                bucket = Bucket(bench.server, f"compact-{number}-{turn}")
                bucket.fill(segments)
                with bench.cold(contender, bucket.name) as mounted:
                    took = seconds(_borg, environment, mounted.root, "compact")
                measured.add(contender.name, took, mounted.peak)
                left = sum(key.startswith("data/") for key in bucket.sizes())
                if left > LEFT_MAX:
                    raise RuntimeError(f"{left} segments of {count} are left")
                bucket.remove()
        return [measured]


def _repository(bench: Bench, environment: dict[str, str], count: int) -> dict[str, bytes]:
    """Return the files of a repository that holds nothing but `count` deleted chunks, by key."""
    folder, source = bench.home / "data" / "borg", bench.home / "data" / "chunks"
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(os.urandom(count * SEGMENT))
    _borg(environment, folder, "init", "--encryption=none")
    _borg(environment, folder, "config", "::", "max_segment_size", str(SEGMENT))
    chunks = f"--chunker-params=fixed,{SEGMENT}"
    _borg(environment, folder, "create", chunks, "--compression=none", "::one", str(source))
    _borg(environment, folder, "delete", "::one")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _borg(environment: dict[str, str], repository: Path, *arguments: str) -> None:
    """Run borg; raises `CalledProcessError` when it fails."""
    subprocess.run(
        [tool("borg"), *arguments],
        env={**os.environ, **environment, "BORG_REPO": str(repository)},
        stdout=subprocess.DEVNULL,
        check=True,
    )

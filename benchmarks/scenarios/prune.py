"""`restic prune` of thousands of packs that nothing refers to, as an interrupted backup leaves."""

import hashlib
import shutil

from backgate.gateway.units import KIB
from benchmarks.bench import Bench, Measurement, seconds
from benchmarks.buckets import Bucket, files_below
from benchmarks.entrants import Entrant, as_advised
from benchmarks.machine import drop_caches
from benchmarks.peers import Rclone, S3fs, restic, restic_environment

PACK = 8 * KIB  # bytes of each; restic does not look into what no index names


class Prune:
    """The packs are put beside the mount; what is measured removes them."""

    name = "prune"

    def run(self, bench: Bench) -> list[Measurement]:
        count = bench.sizes.files
        packs = _packs(count)
        measured = Measurement(f"`restic prune` of {count} packs", "s")
        entrants = [
            Entrant(bench.backgate),
            as_advised(bench, "backgate-prune"),
            Entrant(Rclone(bench.home / "rclone-prune", bench.server, "writes")),
            Entrant(S3fs(bench.home / "s3fs-prune", bench.server, caches=False)),
            Entrant(None),
        ]
        for number in bench.rounds():
            for turn in range(len(entrants)):
                entrant = entrants[(turn + number) % len(entrants)]
                bucket = Bucket(bench.server, f"prune-{number}-{turn}")
                measured.add(entrant.name, *_pruned(bench, entrant, bucket, packs))
                bucket.remove()
        return [measured]


def _pruned(
    bench: Bench, entrant: Entrant, bucket: Bucket, packs: dict[str, bytes]
) -> tuple[float, int]:
    """Return the seconds that it takes, and the memory of who shows the bucket."""
    cache = bench.home / "restic-cache"
    environment = restic_environment(bench.server, bucket.name, bench.password, cache)
    contender = entrant.contender
    if contender is None:
        restic(environment, "init")
        bucket.fill(packs)
        drop_caches()
        took, peak = seconds(restic, environment, "prune", "--quiet"), 0
    else:
        with contender.mounted(bucket.name) as mounted:
            environment["RESTIC_REPOSITORY"] = str(mounted.root)
            restic(environment, "init")
            bucket.wait_until_stored(files_below(mounted.root))
        bucket.fill(packs)
        with bench.cold(contender, bucket.name) as mounted:
            took = seconds(restic, environment, *entrant.options, "prune", "--quiet")
        peak = mounted.peak
    shutil.rmtree(cache, ignore_errors=True)
    left = sum(key.startswith("data/") for key in bucket.sizes())
    if left:
        raise RuntimeError(f"{left} packs of {len(packs)} are left")
    return took, peak


def _packs(count: int) -> dict[str, bytes]:
    """Return the packs of a repository, by key."""
    packs: dict[str, bytes] = {}
    for number in range(count):
        content = number.to_bytes(PACK, "little")
        name = hashlib.sha256(content).hexdigest()
        packs[f"data/{name[:2]}/{name}"] = content
    return packs

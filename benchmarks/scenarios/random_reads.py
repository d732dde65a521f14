"""Short reads here and there in one large object, as a file system on a disk image makes them."""

import os
import random
from pathlib import Path

from backgate.gateway.units import KIB
from benchmarks.bench import Bench, Measurement, seconds
from benchmarks.scenarios.sequential import BUCKET, KEY

LENGTH = 128 * KIB  # bytes of each read
PAGE = 4 * KIB  # bytes; reads begin at a multiple


class RandomReads:
    """One process that reads at random offsets, one read after another, everything cold."""

    name = "random"

    def run(self, bench: Bench) -> list[Measurement]:
        size, count = bench.sizes.object, bench.sizes.random_reads
        bench.object_of(BUCKET, KEY, size)
        reads = Measurement(f"{count} random reads of {LENGTH // KIB} KiB, cold", "s")
        for number in bench.rounds():
            choice = random.Random(number)
            offsets = [choice.randrange((size - LENGTH) // PAGE) * PAGE for _ in range(count)]
            for contender in bench.in_turn(bench.mounts, number):
                with bench.cold(contender, BUCKET) as mounted:
                    took = seconds(_read, mounted.root / KEY, offsets)
                reads.add(contender.name, took, mounted.peak)
        return [reads]


def _read(file: Path, offsets: list[int]) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        for offset in offsets:
            if len(os.pread(descriptor, LENGTH, offset)) != LENGTH:
                raise RuntimeError(f"{file}: a short read at {offset}")
    finally:
        os.close(descriptor)

"""One large object from start to end, cold and a second time."""

import os
import subprocess
import sys
from pathlib import Path

from backgate.gateway.units import MIB
from benchmarks.bench import Bench, Measurement, seconds
from benchmarks.machine import drop_caches

BUCKET, KEY = "large", "object"
REFERENCES = [(8 * MIB, 4), (8 * MIB, 8), (16 * MIB, 4)]  # bytes per GET, threads
MEGABYTE = 1_000_000


class Sequential:
    """`cat` of one object, with everything cold, then again through the same mount."""

    name = "sequential"

    def run(self, bench: Bench) -> list[Measurement]:
        size = bench.sizes.object
        bench.object_of(BUCKET, KEY, size)
        cold = Measurement(f"cold sequential read of {size // MIB} MiB", "MB/s")
        second = Measurement(f"second read of the same {size // MIB} MiB", "MB/s")
        for number in bench.rounds():
            for length, threads in REFERENCES:
                name = f"boto3, {threads} GETs of {length // MIB} MiB"
                cold.add(name, size / MEGABYTE / _plain_gets(bench, length, threads))
            for contender in bench.in_turn(bench.mounts, number):
                with bench.cold(contender, BUCKET) as mounted:
                    file = mounted.root / KEY
                    first_speed = size / MEGABYTE / seconds(_read, file)
                    second_speed = size / MEGABYTE / seconds(_read, file)
                cold.add(contender.name, first_speed, mounted.peak)
                second.add(contender.name, second_speed, mounted.peak)
        return [cold, second]


def _plain_gets(bench: Bench, length: int, threads: int) -> float:
    drop_caches()
    command = [sys.executable, "-m", "benchmarks.plain_gets", bench.server.endpoint_url]
    command += [BUCKET, KEY, str(length), str(threads)]
    environment = {**os.environ, **bench.server.environment()}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout)


def _read(file: Path) -> None:
    subprocess.run(["cat", str(file)], stdout=subprocess.DEVNULL, check=True)

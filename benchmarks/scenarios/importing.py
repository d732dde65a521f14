"""How fast the metadata cache takes in a listing, and what it needs for it; without a network."""

import json
import subprocess
import sys

from benchmarks.bench import Bench, Measurement
from benchmarks.report import US

ORDERS = {
    "sure": "listed in key order, by up to four streams",
    "claimed": "in key order, which has to be seen first",
    "none": "in no order",
}


class Importing:
    """A first listing of a million keys and a second one, for each way in which stores list."""

    name = "import"

    def run(self, bench: Bench) -> list[Measurement]:
        count = bench.sizes.many
        found: list[Measurement] = []
        for order, text in ORDERS.items():
            first = Measurement(f"listing {count} keys into the index: {text}", "keys/s")
            again = Measurement(f"listing {count} keys again: {text}", "keys/s")
            size = Measurement(f"index of {count} keys: {text}", "bytes/key")
            for _ in bench.rounds():
                figures = _measured(count, order)
                first.add(US, figures["first"], int(figures["peak"]))
                again.add(US, figures["again"], int(figures["peak"]))
                size.add(US, figures["size"])
            found += [first, again, size]
        return found


def _measured(count: int, order: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.importing", str(count), order]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures

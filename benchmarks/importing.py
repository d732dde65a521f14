"""List a store of nothing but numbers into an index, use that, and print what it cost.

`python -m benchmarks.importing COUNT ORDER [file|postgresql]`, ORDER being sure, claimed or none:
what is known of the order in which the store lists. The index is in a file or, where it is asked
for, in a PostgreSQL of its own. Nothing goes over a network: what is measured is ours.
"""

import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from servers.postgresql import PostgreSQL, postgresql  # noqa: E402
from support.numbered import PER_DIRECTORY, Numbered  # noqa: E402

from backgate.gateway.metadata.cache import Metadata, open_metadata  # noqa: E402
from backgate.gateway.metadata.place import Shared  # noqa: E402
from backgate.gateway.provider import Abilities, Listing  # noqa: E402
from backgate.gateway.store import ObjectStore  # noqa: E402

LOOK_UPS = 2_000  # of names anywhere in the store, one after another
DURABLE = {"fsync": "on"}  # as a database is run that is to keep what it has


async def main(count: int, order: str, kind: str) -> None:
    provider = Numbered(count)
    provider.abilities = Abilities(
        lists_in_order=order != "none", listing=Listing(order_is_sure=order == "sure")
    )
    with _place(kind) as (place, server):
        async with open_metadata(
            ObjectStore(provider), place, writers="exclusive", max_age=60, crawls=False
        ) as metadata:
            first, again = await _listed(metadata), await _listed(metadata)
            status = await metadata.status()
            size = status.index_size if server is None else _size(server)
            if status.objects != count or size is None:
                raise RuntimeError(f"{status.objects} objects instead of {count}")
            figures = {
                "first": count / first,  # keys in a second
                "again": count / again,
                "size": size / count,  # bytes for a key
                "look_up": await _look_up(metadata, provider),  # seconds for a name
                "names": count / await _walked(metadata, count),  # in a second
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # bytes
            }
    print(json.dumps(figures))


@contextmanager
def _place(kind: str) -> Iterator[tuple[Path | Shared, PostgreSQL | None]]:
    if kind == "postgresql":
        with postgresql(DURABLE) as server:
            yield Shared(server.server("backgate"), "numbers"), server
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory), None


def _size(server: PostgreSQL) -> int:
    return int(server.sql("SELECT pg_database_size('postgres')"))


async def _listed(metadata: Metadata) -> float:
    begun = time.monotonic()
    await metadata.refresh()
    return time.monotonic() - begun


async def _look_up(metadata: Metadata, provider: Numbered) -> float:
    """Return the seconds that it takes to find one name, by each component of its path."""
    numbers = random.Random(0).sample(range(provider.count), min(LOOK_UPS, provider.count))
    begun = time.monotonic()
    for number in numbers:
        above = ""
        for component in provider.key(number).split("/"):
            await metadata.look_up_name(above, component)
            above += f"{component}/"
    return (time.monotonic() - begun) / len(numbers)


async def _walked(metadata: Metadata, count: int) -> float:
    """Return the seconds that the names of all directories take."""
    begun, found = time.monotonic(), 0
    for number in range(0, count, PER_DIRECTORY):
        prefix = f"xo-vm-backups/{number // PER_DIRECTORY:06}/"
        cursor: str | None = None
        while True:
            names, cursor = await metadata.names(prefix, cursor)
            found += len(names)
            if cursor is None:
                break
    if found != count:
        raise RuntimeError(f"{found} names instead of {count}")
    return time.monotonic() - begun


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "file")

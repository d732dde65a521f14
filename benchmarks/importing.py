"""List a store of nothing but numbers into an index, and print what that cost.

`python -m benchmarks.importing COUNT ORDER`, ORDER being sure, claimed or none: what is known of
the order in which the store lists. Nothing goes over a network: what is measured is ours.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from support.numbered import Numbered  # noqa: E402

from backgate.gateway.metadata.cache import Metadata, open_metadata  # noqa: E402
from backgate.gateway.provider import Abilities, Listing  # noqa: E402
from backgate.gateway.store import ObjectStore  # noqa: E402


async def main(count: int, order: str) -> None:
    provider = Numbered(count)
    provider.abilities = Abilities(
        lists_in_order=order != "none", listing=Listing(order_is_sure=order == "sure")
    )
    with tempfile.TemporaryDirectory() as directory:
        async with open_metadata(
            ObjectStore(provider),
            Path(directory),
            writers="exclusive",
            max_age=60,
            crawls=False,
        ) as metadata:
            first, again = await _listed(metadata), await _listed(metadata)
            status = await metadata.status()
    if status.objects != count:
        raise RuntimeError(f"{status.objects} objects instead of {count}")
    figures = {
        "first": count / first,  # keys in a second
        "again": count / again,
        "size": status.index_size / count,  # bytes for a key
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # bytes resident
    }
    print(json.dumps(figures))


async def _listed(metadata: Metadata) -> float:
    begun = time.monotonic()
    await metadata.refresh()
    return time.monotonic() - begun


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2])

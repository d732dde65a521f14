"""Another process with the same index: does what it reads, and answers each line with "done"."""

import sys
from pathlib import Path

import trio

from backgate.gateway.metadata.cache import open_metadata
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore


async def main(directory: str) -> None:
    store = ObjectStore(Memory("memory:neighbour"))
    settings = {"writers": "exclusive", "max_age": 60.0, "crawls": False}
    async with open_metadata(store, Path(directory), **settings) as metadata:  # type: ignore[arg-type]
        print("open", flush=True)
        for line in sys.stdin:
            word, key = line.split()
            if word == "stored":
                await metadata.stored(ObjectInfo(key, 1, 1, "etag"), None)
            elif word == "removed":
                await metadata.removed([key])
            print("done", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])

"""Disks in memory as the tree that a backup of them is shown as."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from backgate.fs.backup_disks import NamedDisk
from backgate.fs.disk_tree import DiskTree, open_disks
from backgate.fs.format import Surroundings
from backgate.gateway.source import Bytes


@asynccontextmanager
async def tree_of(
    *disks: bytes | bytearray, passphrases: Sequence[bytes] = ()
) -> AsyncIterator[DiskTree]:
    async with trio.open_nursery() as nursery:
        lent = Surroundings(
            objects=None,  # type: ignore[arg-type]  # the disks are here
            cache_directory=Path("/nonexistent"),
            secret=None,
            nursery=nursery,
            workers=trio.CapacityLimiter(1),
            memory_limit=32 << 20,
        )
        named = [
            NamedDisk(name=f"xvd{chr(97 + number)}", source=Bytes(data), mtime_ns=number)
            for number, data in enumerate(disks)
        ]
        async with open_disks(named, lent, where="a backup", passphrases=passphrases) as tree:
            yield tree

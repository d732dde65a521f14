"""The contract of a disk image: a source of a disk's bytes over the objects that hold them.

A disk may be made of several images: the youngest says of each stretch whether it has it, and what
it does not have comes from the one that it was made on top of. An image kind is a `Member`, in
`fs/disks/`; a `fs.disks.chain.Chain` makes a `Disk` of members. Everything here is asynchronous and
reads through `Files`; what lies on the disk (partitions, file systems) is `fs.volume`'s.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import trio

from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source


class Files(Protocol):
    """The objects that images are made of; encrypted or not, the images need not know."""

    workers: trio.CapacityLimiter  # for decompression and decryption

    async def info(self, key: str) -> ObjectInfo:
        """Return the object `key`, or raise `NotFound`."""

    async def renewed(self, key: str) -> ObjectInfo:
        """Return the same as the store has it now, whoever wrote it; `StoreError` in doubt."""

    def source(self, info: ObjectInfo) -> Source:
        """Return the object's bytes as they are stored."""

    def opened(self, key: str, stored: Data) -> Data:
        """Return what the bytes of the whole object `key` hold: decrypted, where it is encrypted.

        Blocking, for a worker thread. Raises `Damaged` when they are not authentic.
        """


class Piece(NamedTuple):
    """What a member says of `[start, stop)`: the bytes, or None: look at the next member."""

    start: int
    stop: int
    data: Data | None


class Member(Protocol):
    """One image of a chain."""

    where: str  # what messages call it
    size: int  # bytes of the disk at the time of this image

    @property
    def allocated(self) -> int:
        """The bytes of the disk that it has, or may have at most."""

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, int, bool]]:
        """Return (start, stop, has it?) for a range within `size`, without a gap; reads little."""

    async def read(self, offset: int, length: int) -> Sequence[Piece]:
        """Return the bytes of a range that `extents` has given as one that it has.

        Raises `NotFound` or `Replaced` when what should hold them is another than it was.
        """


class Disk(Source, Protocol):
    """A whole disk."""

    where: str  # what messages call it
    allocated: int | None  # bytes of the disk that are stored; None: not known
    notes: Mapping[str, str]  # for the administrator: the kind of image, how many a chain has

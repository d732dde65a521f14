"""A snapshot of device mapper: its origin, with the chunks that have changed since kept aside."""

import struct
from collections.abc import Iterator

from backgate.fs.volume import Device, Extent
from backgate.fs.volumes.reading import read_exactly
from backgate.gateway.errors import Damaged

SECTOR = 512  # bytes
HEADER = struct.Struct("<4sIII")  # magic, whether it is valid, version, sectors of a chunk
MAGIC = b"SnAp"
PAIR = struct.Struct("<QQ")  # a chunk of the origin, and the chunk of the store that has it
CHUNK_MAX = 1 << 20  # bytes; the tools take no more than 512 KiB
CHANGED_MAX = 1 << 20  # chunks of one; 4 GiB in the usual ones
CHANGED_ALL = 4 << 20  # chunks of all snapshots of a group; each takes 100 bytes of memory


class Snapshot:
    """`size` bytes of `origin` as they were, by what `store` has of them."""

    def __init__(self, origin: Device, store: Device, size: int, most: int = CHANGED_MAX) -> None:
        """Raises `Damaged` where more than `most` chunks have changed."""
        magic, valid, version, sectors = HEADER.unpack(
            read_exactly(store, 0, HEADER.size, "snapshot")
        )
        if magic != MAGIC or version != 1 or not 0 < sectors * SECTOR <= CHUNK_MAX:
            raise Damaged("snapshot", 0, "its store does not begin with a header")
        if not valid:
            raise Damaged("snapshot", 0, "its store was full, and it is lost")
        self._origin, self._store, self._chunk = origin, store, sectors * SECTOR
        self._changed = dict(self._pairs(min(most, CHANGED_MAX)))
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        return b"".join(
            read_exactly(device, at, wanted, "snapshot")
            for device, at, wanted in self._pieces(offset, length)
        )

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for device, at, wanted in self._pieces(offset, length):
            if at + wanted > device.size:
                raise Damaged("snapshot", at, "a chunk lies beyond the end of its device")
            yield from device.extents(at, wanted)

    @property
    def changed(self) -> int:
        """How many chunks have changed."""
        return len(self._changed)

    def _pairs(self, most: int) -> Iterator[tuple[int, int]]:
        """Yield (chunk of the origin, chunk of the store); a table of them stands before theirs."""
        per_table = self._chunk // PAIR.size
        last = self._store.size // self._chunk
        count = 0
        for table in range(1, last, per_table + 1):
            raw = read_exactly(self._store, table * self._chunk, self._chunk, "snapshot")
            for old, new in PAIR.iter_unpack(raw):
                if new == 0:  # the header's own chunk: the end
                    return
                count += 1
                if count > most:
                    raise Damaged("snapshot", None, f"more than {most} chunks have changed")
                yield old, new

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Device, int, int]]:
        stop = min(offset + length, self.size)
        while offset < stop:
            number, within = divmod(offset, self._chunk)
            wanted = min(self._chunk - within, stop - offset)
            kept = self._changed.get(number)
            if kept is None:
                yield self._origin, offset, wanted
            else:
                yield self._store, kept * self._chunk + within, wanted
            offset += wanted

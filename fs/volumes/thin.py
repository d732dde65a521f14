"""A thin volume of device mapper: blocks of a pool, found by the pool's metadata.

The metadata is a tree of two levels (thin-provisioning.txt of the kernel; persistent-data below
it): from a device's number to a tree of its own, and there from each of its blocks to a block of
the pool. A snapshot shares its origin's nodes. Nodes are read when they are needed, each checked
by its checksum.
"""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from cachetools import LRUCache

from backgate.fs.volume import HOLE, Device, Extent
from backgate.fs.volumes.checksums import plain_crc32c
from backgate.fs.volumes.reading import read_exactly
from backgate.gateway.errors import Damaged

NODE = 4096  # bytes: the size of every block of the metadata
SECTOR = 512  # bytes
SUPERBLOCK = struct.Struct("<IIQ16sQIIQQ128s128sQQIIQ")
MAGIC = 27022010
NEEDS_CHECK = 1  # the flag of a pool whose metadata could not be written once
SUPERBLOCK_XOR, NODE_XOR = 160774, 121107  # each kind of block has its own checksum
HEADER = struct.Struct("<IIQIIII")  # checksum, flags, own number, entries, most entries, value size
INTERNAL, LEAF = 1, 2
KEY = VALUE = 8  # bytes
DEPTH_MAX = 16  # nodes one below another; 2**64 blocks need nine
NODES_KEPT = 512  # nodes of one pool that stay decoded
TIME_BITS = 24  # the low bits of a mapping, of when it was made
CHUNK_MIN, CHUNK_MAX = 64 << 10, 1 << 30  # bytes; the kernel's own limits


class Node(NamedTuple):
    """A node of a tree: keys in order, and for each the number of a node, or a value."""

    is_leaf: bool
    keys: tuple[int, ...]
    values: tuple[int, ...]


class Pool:
    """The metadata of a pool, on `metadata`, over the blocks of `data`."""

    def __init__(self, metadata: Device, data: Device) -> None:
        self._metadata, self.data = metadata, data
        self._nodes: LRUCache[int, Node] = LRUCache(NODES_KEPT)
        raw = self._checked(0, SUPERBLOCK_XOR, "thin pool")
        fields = SUPERBLOCK.unpack_from(raw)
        if fields[4] != MAGIC:
            raise Damaged("thin pool", 0, "its metadata has no superblock")
        self.needs_check, self.transaction = bool(fields[1] & NEEDS_CHECK), fields[7]
        self._roots, sectors, metadata_sectors = fields[11], fields[13], fields[14]
        self.chunk = sectors * SECTOR
        if not CHUNK_MIN <= self.chunk <= CHUNK_MAX or metadata_sectors * SECTOR != NODE:
            raise Damaged("thin pool", 0, f"blocks of {self.chunk} bytes")

    def root(self, number: int) -> int:
        """Return the root of the tree of device `number`."""
        for key, value in self.entries(self._roots, number, number + 1):
            if key == number:
                return value
        raise Damaged("thin pool", None, f"it has no device {number}")

    def entries(self, root: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the (key, value) with `start <= key < stop`, in order."""
        yield from self._entries(root, start, stop, 0, 1 << 64, DEPTH_MAX)

    def _entries(
        self, number: int, start: int, stop: int, low: int, high: int, depth: int
    ) -> Iterator[tuple[int, int]]:
        node = self._node(number)
        keys = node.keys
        if not keys:
            if depth < DEPTH_MAX:
                raise Damaged("thin pool", number * NODE, "a node of its tree is empty")
            return  # a device without a block
        if keys[0] < low or keys[-1] >= high or depth == 0:
            raise Damaged("thin pool", number * NODE, "a node of its tree is out of order")
        for at, (key, value) in enumerate(zip(keys, node.values, strict=True)):
            following = keys[at + 1] if at + 1 < len(keys) else high
            if key >= stop:
                return
            if node.is_leaf:
                if key >= start:
                    yield key, value
            elif following > start:
                yield from self._entries(value, start, stop, key, following, depth - 1)

    def _node(self, number: int) -> Node:
        node = self._nodes.get(number)
        if node is None:
            node = self._nodes[number] = self._read(number)
        return node

    def _read(self, number: int) -> Node:
        raw = self._checked(number, NODE_XOR, "node of a thin pool's tree")
        _, flags, _, count, most, size, _ = HEADER.unpack_from(raw)
        values_at = HEADER.size + most * KEY
        wrong = flags not in (INTERNAL, LEAF) or size != VALUE or count > most
        if wrong or values_at + most * VALUE > NODE:
            raise Damaged("node of a thin pool's tree", number * NODE, "its header is not one")
        keys = struct.unpack_from(f"<{count}Q", raw, HEADER.size)
        if any(one >= two for one, two in pairwise(keys)):
            raise Damaged("node of a thin pool's tree", number * NODE, "its keys are out of order")
        return Node(flags == LEAF, keys, struct.unpack_from(f"<{count}Q", raw, values_at))

    def _checked(self, number: int, xor: int, what: str) -> bytes:
        raw = read_exactly(self._metadata, number * NODE, NODE, what)
        checksum, _, own = struct.unpack_from("<IIQ", raw)
        if plain_crc32c(raw[4:]) ^ xor != checksum:
            raise Damaged(what, number * NODE, "its checksum is wrong")
        if own != number:
            raise Damaged(what, number * NODE, f"it says that it is block {own}")
        return raw


class Thin:
    """`size` bytes of device `number` of `pool`; what it never wrote is `under`, or zeros."""

    def __init__(self, pool: Pool, number: int, size: int, under: Device | None = None) -> None:
        self._pool, self._root, self._under = pool, pool.root(number), under
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        pieces = []
        for device, at, wanted in self._pieces(offset, length):
            data = b"" if device is None else device.read_at(at, wanted)
            if device is self._pool.data and len(data) < wanted:
                raise Damaged("thin pool", at, "a block lies beyond the end of its data")
            pieces.append(data.ljust(wanted, b"\0"))  # what is under it may be shorter
        return b"".join(pieces)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for device, at, wanted in self._pieces(offset, length):
            there = 0 if device is None else max(0, min(wanted, device.size - at))
            if device is self._pool.data and there < wanted:
                raise Damaged("thin pool", at, "a block lies beyond the end of its data")
            if device is not None and there:
                yield from device.extents(at, there)
            if there < wanted:
                yield Extent(wanted - there, HOLE, 0)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Device | None, int, int]]:
        """Yield (device, offset on it, length); the device is None for zeros."""
        stop = min(offset + length, self.size)
        chunk = self._pool.chunk
        last = -(-stop // chunk)
        for number, value in self._pool.entries(self._root, offset // chunk, last):
            start = number * chunk
            if offset < start:
                yield self._under, offset, start - offset
                offset = start
            end = min(start + chunk, stop)
            yield self._pool.data, (value >> TIME_BITS) * chunk + offset - start, end - offset
            offset = end
        if offset < stop:
            yield self._under, offset, stop - offset

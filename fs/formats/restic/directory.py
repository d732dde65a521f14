"""One directory of a snapshot: a tree blob, kept small in memory, its names in order.

A tree blob is JSON of about 450 bytes for each name, and directories of 100,000 names exist. So
the JSON stays as it is, compressed in chunks, and becomes nodes only for the page that somebody
looks at.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import zstandard

from backgate.fs.formats.restic.compression import decompress
from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.documents import NamedTree, Node, RawTree, id_from_hex, parse
from backgate.fs.formats.restic.values import checked_name, name_from_go
from backgate.gateway.source import Data

CHUNK = 256  # names; also a page of a listing
COMPRESSED_FROM = 2048  # bytes of JSON; it takes a fifth then, and 20 us for each look
OVERHEAD = 400  # bytes that an object of this class takes, roughly
SPECIAL_NAMES = (b".", b"/")  # very old trees: the directory itself, in its `subtree`

_nodes = msgspec.json.Decoder(list[Node])


@dataclass(frozen=True, slots=True)
class _Chunk:
    first: bytes  # name
    data: bytes  # a JSON list of nodes
    length: int  # bytes of the JSON when `data` is compressed, else 0


class Directory:
    """The names of one tree blob, in byte order; `count` of them."""

    def __init__(self, chunks: Sequence[_Chunk], count: int, stands_for: bytes | None) -> None:
        self.count = count
        self.stands_for = stands_for  # a very old tree: this other tree is the directory
        self._chunks = chunks
        self.weight = OVERHEAD + sum(len(one.data) + len(one.first) + 100 for one in chunks)

    def nodes(self, chunk: int) -> list[Node]:
        """Return the nodes of a chunk, numbers `chunk * CHUNK` on; empty behind the last one.

        Raises `Unsound` when a field of one is not what it should be.
        """
        if chunk >= len(self._chunks):
            return []
        one = self._chunks[chunk]
        data = decompress(one.data, one.length) if one.length else one.data
        return _nodes_of(data)

    def chunk_of(self, name: bytes) -> int:
        """Return the chunk in which `name` must be if it is here at all."""
        return max(0, bisect_right(self._chunks, name, key=lambda one: one.first) - 1)


def directory_of(plain: Data) -> Directory:
    """Return the directory that a tree blob describes; `Unsound` when it must not be shown.

    Every name is decoded and checked here, so that one directory is refused as a whole.
    """
    raws = parse(plain, RawTree).nodes or []
    names = [name_from_go(node.name) for node in parse(plain, NamedTree).nodes or []]
    if len(names) == 1 and names[0] in SPECIAL_NAMES:
        (node,) = _nodes_of(b"[%b]" % bytes(raws[0]))
        return Directory([], 0, id_from_hex(node.subtree or ""))
    if any(one >= two for one, two in pairwise(names)):
        order = sorted(range(len(names)), key=names.__getitem__)
        names, raws = [names[at] for at in order], [raws[at] for at in order]
        if any(one == two for one, two in pairwise(names)):
            raise Unsound("two entries of one name")
    for name in names:
        checked_name(name)
    return Directory(_chunks(names, raws), len(names), None)


def _chunks(names: Sequence[bytes], raws: Sequence[msgspec.Raw]) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    compressor = zstandard.ZstdCompressor(level=1)
    for at in range(0, len(names), CHUNK):
        data: bytes = b"[%b]" % b",".join(map(memoryview, raws[at : at + CHUNK]))
        if len(data) > COMPRESSED_FROM:
            chunks.append(_Chunk(names[at], compressor.compress(data), len(data)))
        else:
            chunks.append(_Chunk(names[at], data, 0))
    return chunks


def _nodes_of(data: bytes) -> list[Node]:
    try:
        return _nodes.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unsound(f"not the JSON of a tree: {error}") from None

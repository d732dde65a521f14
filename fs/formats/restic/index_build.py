"""Make tables of blob locations from index files, and one table of several, with bounded memory.

The work on each record is done by slices over whole arrays: ten million records take seconds.
"""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from backgate.fs.formats.restic.crypto import OVERHEAD, Unsound
from backgate.fs.formats.restic.documents import HEX_ID, ID, Index, IndexedBlob, parse
from backgate.fs.formats.restic.segment import RECORD, Segment, write_segment

WORDS = RECORD // 4  # u32 in a record
ID_WORDS = ID // 4
PACK, OFFSET, LENGTH, PLAIN_LENGTH = range(ID_WORDS, WORDS)  # the words behind the id
MERGE_STEP = 4096  # records taken from each table at a time


class Records:
    """Locations gathered from index files, to become one table."""

    def __init__(self) -> None:
        self.index_ids: list[bytes] = []
        self.count = 0
        self._packs: list[bytes] = []
        self._words = array("I")

    def add(self, index_id: bytes, data: bytes) -> None:
        """Add what an index file says; `Unsound`, and nothing added, when it makes no sense."""
        index = parse(data, Index)
        packs = [pack for pack in index.packs or () if pack.blobs]
        blobs = [blob for pack in packs for blob in pack.blobs or ()]
        numbers = [
            number for number, pack in enumerate(packs, len(self._packs)) for _ in pack.blobs or ()
        ]
        names = _ids([pack.id for pack in packs])
        self._words.extend(_words(blobs, numbers))
        self._packs += [names[at : at + ID] for at in range(0, len(names), ID)]
        self.index_ids.append(index_id)
        self.count += len(blobs)

    def write(self, path: Path) -> None:
        """Write the table."""
        data = self._words.tobytes()
        records = b"".join(_sorted(data))
        write_segment(path, self.index_ids, self._packs, self.count, [records])


def merge(segments: Sequence[Segment], path: Path) -> None:
    """Write one table that knows what all of `segments` know."""
    index_ids = frozenset[bytes]().union(*(segment.index_ids for segment in segments))
    packs = [segment.packs for segment in segments]
    count = sum(segment.count for segment in segments)
    write_segment(path, sorted(index_ids), packs, count, _merged(segments))


def _merged(segments: Sequence[Segment]) -> Iterator[bytes]:
    """Sorted pieces. Each round takes what lies up to the least of the tables' last loaded ids."""
    bases, base = [], 0  # pack numbers of a table start behind those of the tables before it
    for segment in segments:
        bases.append(base)
        base += len(segment.packs) // ID
    positions = [0] * len(segments)
    while True:
        loaded = [
            _rebased(segment.records(position, MERGE_STEP), base)
            for segment, position, base in zip(segments, positions, bases, strict=True)
        ]
        if not any(loaded):
            return
        # A table that is loaded to its end does not bound the round.
        bound = min(
            (
                data[-RECORD:][:ID]
                for data, segment, position in zip(loaded, segments, positions, strict=True)
                if position + len(data) // RECORD < segment.count
            ),
            default=None,
        )
        taken = [data if bound is None else _up_to(data, bound) for data in loaded]
        for number, data in enumerate(taken):
            positions[number] += len(data) // RECORD
        yield b"".join(_sorted(b"".join(taken)))


def _up_to(data: bytes, bound: bytes) -> bytes:
    low, high = 0, len(data) // RECORD
    while low < high:
        middle = (low + high) // 2
        if data[middle * RECORD : middle * RECORD + ID] <= bound:
            low = middle + 1
        else:
            high = middle
    return data[: low * RECORD]


def _rebased(data: bytes, base: int) -> bytes:
    if not base:
        return data
    words = array("I", data)
    words[PACK::WORDS] = array("I", [pack + base for pack in words[PACK::WORDS]])
    return words.tobytes()


def _sorted(data: bytes) -> list[bytes]:
    return sorted([data[at : at + RECORD] for at in range(0, len(data), RECORD)])


def _words(blobs: Sequence[IndexedBlob], packs: Sequence[int]) -> "array[int]":
    words = array("I", bytes(len(blobs) * RECORD))
    ids = array("I", _ids([blob.id for blob in blobs]))
    for word in range(ID_WORDS):
        words[word::WORDS] = ids[word::ID_WORDS]
    if any(blob.length < OVERHEAD for blob in blobs):
        raise Unsound("a blob shorter than an envelope")
    try:
        words[PACK::WORDS] = array("I", packs)
        words[OFFSET::WORDS] = array("I", [blob.offset for blob in blobs])
        words[LENGTH::WORDS] = array("I", [blob.length for blob in blobs])
        words[PLAIN_LENGTH::WORDS] = array("I", [blob.uncompressed_length for blob in blobs])
    except OverflowError:
        raise Unsound("an offset or a length that is no u32") from None
    return words


def _ids(texts: Sequence[str]) -> bytes:
    try:
        ids = bytes.fromhex("".join(texts))
    except ValueError:
        raise Unsound("an id that is not hexadecimal") from None
    if any(len(text) != HEX_ID for text in texts) or len(ids) != ID * len(texts):
        raise Unsound("an id of the wrong length")
    return ids

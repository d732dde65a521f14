"""Fetch what a reader of many small files, or of many directories, is likely to open next.

`cp -r`, tar, rsync and find go through a snapshot directory by directory, in the order they are
listed. Whoever asks for what was expected is followed further and further ahead; whoever opens one
file at random costs little. Blobs of neighbours lie together in packs, so that hundreds of files
come with one request and one hop to a thread.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import trio

from backgate.fs.formats.restic.blobs import Blobs
from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.directories import Directories
from backgate.fs.formats.restic.directory import CHUNK
from backgate.fs.formats.restic.documents import ID, Node, id_from_hex
from backgate.fs.formats.restic.entries import Place, content_of
from backgate.fs.formats.restic.expected import Expected
from backgate.fs.formats.restic.file import hole_id
from backgate.gateway.errors import BackgateError
from backgate.gateway.units import KIB, MIB

SMALL = MIB  # bytes; of larger files only the first blob is fetched early
WINDOW_FIRST = 256 * KIB  # bytes fetched ahead of a file that nobody expected
FILES_MAX = 1024  # files expected at once
FOLLOWED_MAX = 4  # readers followed at once in one snapshot
DEPTH_MAX = 4096  # directories within one another
STEPS_MAX = 4096  # names passed in search of the next files
TREES_FIRST, TREES_MAX = 4, 256  # directories fetched ahead of a listing

Spot = tuple[bytes, int]  # a file: its directory's tree id, and its number there


@dataclass(slots=True)
class _Reader:
    """One reader that is followed: where the fetching is, and what it has fetched."""

    front: list[Spot]  # the next name to look at, in each directory from the root down
    window: int = WINDOW_FIRST  # bytes to have ahead
    expected: Expected[Spot] = field(default_factory=Expected)
    is_busy: bool = False

    def lacks(self, part: int) -> bool:
        """True when less is expected than that part of what should be."""
        return self.expected.weight < self.window // part and len(self.expected) < FILES_MAX // part


class FilesAhead:
    """Follows the readers of the files of one snapshot."""

    def __init__(
        self,
        directories: Directories,
        blobs: Blobs[bytes],
        nursery: trio.Nursery,
        window_max: int,
    ) -> None:
        self._directories, self._blobs = directories, blobs
        self._nursery, self._window_max = nursery, window_max
        self._readers: deque[_Reader] = deque(maxlen=FOLLOWED_MAX)

    def opened(self, place: Place) -> None:
        """Note that the file at `place` is being opened."""
        for reader in self._readers:
            if reader.expected.reached((place.tree, place.number)):
                reader.window = min(2 * reader.window, self._window_max)
                break
        else:
            reader = _Reader(_front_behind(place))
            self._readers.appendleft(reader)
        if reader.front and not reader.is_busy and reader.lacks(2):
            reader.is_busy = True
            self._nursery.start_soon(self._extend, reader)

    async def _extend(self, reader: _Reader) -> None:
        try:
            wanted = await self._next_blobs(reader)
        except (BackgateError, Unsound):
            reader.front, wanted = [], []  # whoever opens what is damaged there will be told
        finally:
            reader.is_busy = False
        await self._blobs.fetch_ahead(wanted)

    async def _next_blobs(self, reader: _Reader) -> list[bytes]:
        wanted: list[bytes] = []
        for _ in range(STEPS_MAX):
            if not reader.lacks(1) or not reader.front:
                break
            spot, node = await self._step(reader)
            if node.type == "file" and node.size:
                ids = content_of(node)
                kept = len(ids) if node.size <= SMALL else ID
                reader.expected.add(spot, min(node.size, SMALL))
                wanted += (ids[at : at + ID] for at in range(0, kept, ID))
        return [blob for blob in wanted if blob != hole_id()]

    async def _step(self, reader: _Reader) -> tuple[Spot, Node]:
        """Go on to the next name in the order of listing, into directories and out again."""
        tree, number = reader.front[-1]
        directory = await self._directories.get(tree)
        if number >= directory.count:
            reader.front.pop()
            return (tree, number), Node(name="")
        nodes = self._directories.nodes(tree, directory, number // CHUNK)
        if number % CHUNK == 0:
            self._nursery.start_soon(self._directories.fetch_ahead, _subtrees(nodes))
        reader.front[-1] = (tree, number + 1)
        node = nodes[number % CHUNK]
        if node.type == "dir" and node.subtree and len(reader.front) < DEPTH_MAX:
            reader.front.append((id_from_hex(node.subtree), 0))
        return (tree, number), node


class DirectoriesAhead:
    """Follows who lists the directories of one snapshot, one after another."""

    def __init__(self, directories: Directories, nursery: trio.Nursery) -> None:
        self._directories, self._nursery = directories, nursery
        self._expected: Expected[bytes] = Expected()
        self._window = TREES_FIRST
        self._is_busy = False

    def listed(self, place: Place, nodes: Sequence[Node]) -> None:
        """Note that `nodes` of the directory at `place` are being listed."""
        if place.subtree and self._expected.reached(place.subtree):
            self._window = min(2 * self._window, TREES_MAX)
        else:
            self._window = TREES_FIRST
        if not self._is_busy and len(self._expected) < self._window // 2:
            self._is_busy = True
            self._nursery.start_soon(self._extend, place, _subtrees(nodes)[: self._window])

    async def _extend(self, place: Place, wanted: list[bytes]) -> None:
        try:
            while place.above is not None and len(wanted) < self._window:
                wanted += await self._following(place)
                place = place.above
        except (BackgateError, Unsound):
            pass  # whoever lists what is damaged there will be told
        finally:
            self._is_busy = False
        wanted = wanted[: self._window]
        for tree in wanted:
            self._expected.add(tree, 0)
        await self._directories.fetch_ahead(wanted)

    async def _following(self, place: Place) -> list[bytes]:
        """The directories behind `place` in the one it is in, as far as one chunk of it shows."""
        directory = await self._directories.get(place.tree)
        chunk, number = divmod(place.number + 1, CHUNK)
        return _subtrees(self._directories.nodes(place.tree, directory, chunk)[number:])


def _front_behind(place: Place) -> list[Spot]:
    front: list[Spot] = []
    at: Place | None = place
    while at is not None and at.tree:
        front.append((at.tree, at.number + 1))
        at = at.above
    return front[::-1]


def _subtrees(nodes: Iterable[Node]) -> list[bytes]:
    return [id_from_hex(node.subtree) for node in nodes if node.type == "dir" and node.subtree]

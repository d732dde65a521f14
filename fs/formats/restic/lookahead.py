"""Fetch what a reader of many small files is likely to open next.

`cp -r`, tar and rsync go through a snapshot directory by directory, in the order they are listed.
Whoever asks for what was expected is followed further and further ahead; whoever opens one file at
random costs little. Blobs of neighbours lie together in packs, so that hundreds of files come with
one request and one hop to a thread. An error ahead of a reader is nobody's yet, whatever it is.
"""

import logging
from collections import deque
from dataclasses import dataclass, field

import trio

from backgate.fs.formats.restic.blobs import Blobs
from backgate.fs.formats.restic.directories import Directories
from backgate.fs.formats.restic.directory import CHUNK, Directory
from backgate.fs.formats.restic.documents import ID, Node, id_from_hex
from backgate.fs.formats.restic.entries import Place, content_of
from backgate.fs.formats.restic.expected import Expected
from backgate.fs.formats.restic.file import hole_id
from backgate.gateway.source import Data
from backgate.gateway.units import KIB, MIB

SMALL = MIB  # bytes; of larger files only the first blob is fetched early
WINDOW_FIRST = 256 * KIB  # bytes fetched ahead of a file that nobody expected
FILES_MAX = 1024  # files expected at once
FOLLOWED_MAX = 4  # readers followed at once in one snapshot
DEPTH_MAX = 4096  # directories within one another
STEPS_MAX = 4096  # names passed in search of the next files

log = logging.getLogger(__name__)

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
        blobs: Blobs[Data],
        nursery: trio.Nursery,
        window_max: int,
    ) -> None:
        self._directories, self._blobs = directories, blobs
        self._nursery, self._window_max = nursery, window_max
        self._readers: deque[_Reader] = deque(maxlen=FOLLOWED_MAX)

    def opened(self, place: Place) -> None:
        """Note that the file at `place` is being opened, and begin to fetch it and what follows."""
        for reader in self._readers:
            if reader.expected.reached((place.tree, place.number)):
                reader.window = min(2 * reader.window, self._window_max)
                break
        else:
            reader = _Reader(_front_at(place))
            self._readers.appendleft(reader)
        if reader.front and not reader.is_busy and reader.lacks(2):
            self._go_on(reader)

    def _go_on(self, reader: _Reader) -> None:
        """Fetch ahead through the directories at hand; wait for the next one in the background."""
        wanted: list[bytes] = []
        try:
            for _ in range(STEPS_MAX):
                if not reader.lacks(1) or not reader.front:
                    break
                directory = self._directories.at_hand(reader.front[-1][0])
                if directory is None:
                    reader.is_busy = True
                    self._nursery.start_soon(self._go_on_later, reader)
                    break
                wanted += self._step(reader, directory)
            self._blobs.want([blob for blob in wanted if blob != hole_id()])
        except Exception as error:  # whoever opens what is damaged there will be told
            log.debug("ahead of a reader of files: %r", error)
            reader.front = []

    async def _go_on_later(self, reader: _Reader) -> None:
        try:
            await self._directories.get(reader.front[-1][0])
        except Exception as error:  # as in `_go_on`
            log.debug("ahead of a reader of files: %r", error)
            reader.front = []
        reader.is_busy = False
        self._go_on(reader)

    def _step(self, reader: _Reader, directory: Directory) -> list[bytes]:
        """Go on to the next name in the order of listing; return what to fetch of it."""
        tree, number = reader.front[-1]
        if number >= directory.count:
            reader.front.pop()
            return []
        reader.front[-1] = (tree, number + 1)
        node = self._directories.nodes(tree, directory, number // CHUNK)[number % CHUNK]
        if node.type == "dir" and node.subtree and len(reader.front) < DEPTH_MAX:
            reader.front.append((id_from_hex(node.subtree), 0))
        if node.type != "file" or not node.size:
            return []
        reader.expected.add((tree, number), min(node.size, SMALL))
        return _first_blobs(node)


def _first_blobs(node: Node) -> list[bytes]:
    ids = content_of(node)
    kept = len(ids) if node.size <= SMALL else ID
    return [ids[at : at + ID] for at in range(0, kept, ID)]


def _front_at(place: Place) -> list[Spot]:
    front: list[Spot] = [(place.tree, place.number)]
    above = place.above
    while above is not None and above.tree:
        front.append((above.tree, above.number + 1))
        above = above.above
    return front[::-1]

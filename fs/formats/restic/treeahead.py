"""Fetch the directories that a reader who goes through a snapshot will list next.

The directories that are known to come stand in a queue. A batch from its head is fetched at once,
and what lies in those takes their place: so even a deep tree comes many directories at a time.
"""

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import trio

from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.directories import Directories
from backgate.fs.formats.restic.directory import CHUNK
from backgate.fs.formats.restic.documents import Node, id_from_hex
from backgate.fs.formats.restic.entries import Place
from backgate.fs.formats.restic.expected import Expected
from backgate.gateway.errors import BackgateError

WINDOW_FIRST, WINDOW_MAX = 4, 256  # directories fetched ahead
QUEUE_MAX = 4096  # directories known to come; more would only be memory
FOLLOWED_MAX = 4  # readers followed at once in one snapshot

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Lister:
    """One reader that is followed."""

    queue: deque[bytes]  # directories that come, and are not fetched yet
    window: int = WINDOW_FIRST
    expected: Expected[bytes] = field(default_factory=Expected)
    is_busy: bool = False


class TreesAhead:
    """Follows those who list the directories of one snapshot."""

    def __init__(self, directories: Directories, nursery: trio.Nursery) -> None:
        self._directories, self._nursery = directories, nursery
        self._listers: deque[_Lister] = deque(maxlen=FOLLOWED_MAX)

    def listed(self, place: Place, nodes: Sequence[Node]) -> None:
        """Note that the first names, `nodes`, of the directory at `place` are being listed."""
        if place.subtree is None or self._is_followed(place.subtree):
            return
        try:
            queue = deque(_subtrees(nodes), QUEUE_MAX)
            above: Place | None = place
            while above is not None and above.tree:
                queue.extend(self._behind(above))
                above = above.above
        except (BackgateError, Unsound):
            return  # whoever lists what is damaged there will be told
        lister = _Lister(queue)
        self._listers.appendleft(lister)
        self._go_on(lister)

    def _is_followed(self, tree: bytes) -> bool:
        for lister in self._listers:
            if lister.expected.reached(tree):
                lister.window = min(2 * lister.window, WINDOW_MAX)
                self._go_on(lister)
                return True
        return False

    def _go_on(self, lister: _Lister) -> None:
        if lister.queue and not lister.is_busy and len(lister.expected) < lister.window // 2:
            lister.is_busy = True
            self._nursery.start_soon(self._extend, lister)

    async def _extend(self, lister: _Lister) -> None:
        try:
            while lister.queue and len(lister.expected) < lister.window:
                await self._batch(lister)
        except Exception as error:  # the nursery is shared: whoever lists that is told
            log.debug("ahead of a reader of directories: %r", error)
            lister.queue.clear()
        lister.is_busy = False

    async def _batch(self, lister: _Lister) -> None:
        number = min(lister.window - len(lister.expected), len(lister.queue))
        batch = [lister.queue.popleft() for _ in range(number)]
        self._directories.want(batch)
        for tree in batch:
            lister.expected.add(tree, 0)
        below: list[bytes] = []
        for tree in batch:
            below += await self._below(tree)
        lister.queue.extendleft(reversed(below))

    async def _below(self, tree: bytes) -> list[bytes]:
        try:
            directory = await self._directories.get(tree)
            return _subtrees(self._directories.nodes(tree, directory, 0))
        except (BackgateError, Unsound):
            return []

    def _behind(self, place: Place) -> list[bytes]:
        """The directories behind `place` in the one it is in, as far as one chunk of it shows."""
        directory = self._directories.at_hand(place.tree)
        if directory is None:
            return []
        chunk, number = divmod(place.number + 1, CHUNK)
        return _subtrees(self._directories.nodes(place.tree, directory, chunk)[number:])


def _subtrees(nodes: Iterable[Node]) -> list[bytes]:
    return [id_from_hex(node.subtree) for node in nodes if node.type == "dir" and node.subtree]

"""The directories of a repository by their tree ids, and the nodes of those lately looked at."""

from collections.abc import Sequence

from cachetools import LRUCache

from backgate.fs.formats.restic.blobs import Blobs
from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.directory import CHUNK, Directory
from backgate.fs.formats.restic.documents import Node
from backgate.fs.formats.restic.values import name_from_go
from backgate.gateway.errors import Damaged

NODES_KEPT = 4096  # of about 700 bytes
STAND_INS_MAX = 8  # very old trees: directories that stand for others, one after another


class Directories:
    """Tree blobs as directories."""

    def __init__(self, blobs: Blobs[Directory]) -> None:
        self._blobs = blobs
        self._nodes: LRUCache[tuple[bytes, int], list[Node]] = LRUCache(NODES_KEPT, getsizeof=len)

    def at_hand(self, tree: bytes) -> Directory | None:
        """Return the directory if it is cached."""
        directory = self._blobs.at_hand(tree)
        return directory if directory is not None and directory.stands_for is None else None

    async def get(self, tree: bytes) -> Directory:
        """Return the directory; `Damaged`, `StoreError`. No checkpoint when it is at hand."""
        if (known := self.at_hand(tree)) is not None:
            return known
        for _ in range(STAND_INS_MAX):
            (directory,) = await self._blobs.get([tree])
            if directory.stands_for is None:
                return directory
            tree = directory.stands_for
        raise Damaged(f"tree {tree.hex()}", None, "directories that stand for one another")

    def nodes(self, tree: bytes, directory: Directory, chunk: int) -> Sequence[Node]:
        """Return the nodes of one chunk of `directory`; `Damaged`."""
        nodes = self._nodes.get((tree, chunk))
        if nodes is None:
            try:
                nodes = directory.nodes(chunk)
            except Unsound as error:
                raise Damaged(f"tree {tree.hex()}", None, str(error)) from None
            self._nodes[tree, chunk] = nodes
        return nodes

    async def node(self, tree: bytes, number: int) -> Node:
        """Return the node of that number."""
        directory = await self.get(tree)
        return self.nodes(tree, directory, number // CHUNK)[number % CHUNK]

    async def find(self, tree: bytes, name: bytes) -> tuple[int, Node] | None:
        """Return the number and the node of `name`, if there is one."""
        directory = await self.get(tree)
        chunk = directory.chunk_of(name)
        for number, node in enumerate(self.nodes(tree, directory, chunk), chunk * CHUNK):
            if name_from_go(node.name) == name:
                return number, node
        return None

    def want(self, trees: Sequence[bytes]) -> None:
        """Begin to fetch directories that will be asked for."""
        self._blobs.want(trees)

"""What a worker may ask for: bytes of the disks' sources, and files beside the images."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from backgate.fs.parser.blocks import Blocks
from backgate.fs.parser.messages import Given, GivenFile, Lost, Message, NoFile, Want, WantFile
from backgate.fs.parser.process import Ended
from backgate.gateway.errors import BackgateError, Damaged
from backgate.gateway.source import Source

FILES_MAX = 1024  # files beside images that one backup may be made of: 2 TiB in parts of 2 GiB

# Returns the file of that name beside the disk of that number; None: there is none to be had.
Siblings: TypeAlias = Callable[[int, str], Awaitable[Source | None]]


class Supplies:
    """The sources of one backup's `disks`, which come first among them."""

    def __init__(
        self, where: str, disks: int, sources: list[Source], siblings: Siblings, memory: int
    ) -> None:
        """`where` is what messages call the backup; `memory` is for blocks, in bytes."""
        self.sources, self.blocks = sources, Blocks(where, sources, memory)
        self.lost: BackgateError | None = None  # what kept us from giving what was asked for
        self._disks, self._siblings = disks, siblings
        self._files: dict[tuple[int, str], int] = {}  # beside images: number of the source
        self._is_search = False

    def begin(self, *, is_search: bool) -> None:
        """Begin a request of ours; in a search for volumes, damage of one disk is no end."""
        self.lost, self._is_search = None, is_search

    async def give(self, wanted: Want | WantFile) -> Message:
        """Return the answer to a worker's question; `Ended` for one that it may not ask."""
        try:
            if isinstance(wanted, Want):
                return await self._block(wanted)
            return await self._file(wanted)
        except BackgateError as error:
            if self._is_search and isinstance(error, Damaged):
                return Lost(str(error), is_damage=True)  # the other disks can be read all the same
            self.lost = error
            return Lost(str(error))

    async def _block(self, wanted: Want) -> Message:
        if wanted.source >= len(self.sources):
            raise Ended(f"it wants bytes of source {wanted.source}, which is none")
        if wanted.offset + wanted.length > self.sources[wanted.source].size:
            raise Ended(f"it wants bytes behind the end of source {wanted.source}")
        return Given(await self.blocks.read(wanted.source, wanted.offset, wanted.length))

    async def _file(self, wanted: WantFile) -> Message:
        key = (wanted.disk, wanted.name)
        number = self._files.get(key)
        if number is None:
            source = None
            if len(self._files) >= FILES_MAX:
                return Lost(f"it is made of more than {FILES_MAX:,} files", is_damage=True)
            if wanted.disk < self._disks:
                source = await self._siblings(wanted.disk, wanted.name)
            if source is None:
                return NoFile()
            number = self._files[key] = len(self.sources)
            self.sources.append(source)
        return GivenFile(number, self.sources[number].size)

"""`Objects` over a local folder, counting its reads: what a format is tested against without a
gateway.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import trio

from backgate.gateway.errors import NotFound, Replaced
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source


class FolderObjects:
    """Every file below `root` is an object; `reads` lists each (key, offset, length) that was
    asked.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reads: list[tuple[str, int, int]] = []
        self.takes = 0.0  # seconds that each read takes

    async def info_now(self, key: str) -> ObjectInfo:
        """The object as it is now."""
        await trio.lowlevel.checkpoint()
        try:
            status = (self.root / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{self.root}: no object {key!r}", key=key) from None
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(f"{self.root}: no object {key!r}", key=key)
        return ObjectInfo(
            key, status.st_size, status.st_mtime_ns, f"{status.st_mtime_ns:x}-{status.st_size:x}"
        )

    async def info(self, key: str) -> ObjectInfo:
        return await self.info_now(key)

    async def renewed(self, key: str) -> ObjectInfo:
        return await self.info_now(key)

    async def below(self, prefix: str, after: str = "") -> Sequence[ObjectInfo]:
        keys = [key for key in self._keys() if key.startswith(prefix) and key > after]
        return [await self.info(key) for key in sorted(keys)[:1000]]

    async def confirm(self, prefix: str) -> None:
        await trio.lowlevel.checkpoint()  # `below` looks each time

    def source(self, info: ObjectInfo) -> Source:
        return _FileSource(self, info)

    def sequential(self, info: ObjectInfo) -> AbstractContextManager[Source]:
        return nullcontext(self.source(info))

    async def all(self) -> list[ObjectInfo]:
        return [await self.info(key) for key in sorted(self._keys())]

    def _keys(self) -> list[str]:
        return [
            os.path.relpath(os.path.join(folder, name), self.root)
            for folder, _, names in os.walk(self.root)
            for name in names
        ]


class _FileSource:
    def __init__(self, objects: FolderObjects, info: ObjectInfo) -> None:
        self._objects, self._info = objects, info
        self.size = info.size

    async def read_at(self, offset: int, length: int) -> Data:
        await trio.sleep(self._objects.takes)
        self._objects.reads.append((self._info.key, offset, length))
        if await self._objects.info_now(self._info.key) != self._info:
            raise Replaced(f"{self._info.key}: another version lies there", key=self._info.key)
        with open(self._objects.root / self._info.key, "rb") as file:
            return os.pread(file.fileno(), length, offset)

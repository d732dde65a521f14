"""The objects of one VHD directory, each decrypted and decompressed whole, and only whole."""

import msgspec
import trio

from backgate.fs.disk import Files
from backgate.fs.disks.chunks import Chunks
from backgate.fs.disks.filters import BadChunk, Filter, filter_named
from backgate.fs.whole import read_whole
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data
from backgate.gateway.units import KIB

SLACK = 64 * KIB  # bytes by which what does not compress may become longer
TINY = 32 * KIB  # bytes that become no more are decoded at once; a thread takes as long


class ChunkFiles:
    """Opens the objects below `directory`, all of which `filter_` has made."""

    def __init__(self, directory: str, files: Files, chunks: Chunks, filter_: Filter) -> None:
        self.directory = directory
        self._files, self._chunks, self._filter = files, chunks, filter_

    async def chunk(self, name: str, size: int, *, is_moved: bool = False) -> Data:
        """Return the chunk `name`, which is of `size` bytes; it is kept for a while.

        With `is_moved` it may just have been stored over another, of which we may still know.
        Raises `NotFound`, `Replaced`, `StoreError`; `Damaged` when it is of another size.
        """
        key = f"{self.directory}/{name}"
        info = await (self._files.renewed(key) if is_moved else self._files.info(key))

        async def make() -> Data:
            data = await self._read(info, size)
            if len(data) != size:
                raise Damaged(info.key, None, f"{len(data)} bytes where {size} belong")
            return data

        return await self._chunks.chunk((info.key, info.etag), make)

    def decode(self, name: str, stored: Data, limit: int) -> Data:
        """Return what the stored bytes of the whole object `name` hold; `Damaged`."""
        key = f"{self.directory}/{name}"
        try:
            return self._filter(self._files.opened(key, stored), limit)
        except BadChunk as error:
            raise Damaged(key, None, str(error)) from None

    async def _read(self, info: ObjectInfo, limit: int) -> Data:
        stored = await read_whole(self._files, info, limit + SLACK)
        name = info.key.removeprefix(f"{self.directory}/")
        if limit <= TINY:
            return self.decode(name, stored, limit)
        return await trio.to_thread.run_sync(
            self.decode, name, stored, limit, limiter=self._files.workers
        )


def filter_in(key: str, content: Data) -> Filter:
    """Return the filter that the list `content` of the object `key` names; `Damaged`."""
    try:
        names = msgspec.json.decode(content, type=list[str])
        if len(names) > 1:
            raise BadChunk("several chunk filters, one after another")
        return filter_named(names[0] if names else "")
    except (msgspec.MsgspecError, UnicodeDecodeError, BadChunk) as error:
        raise Damaged(key, None, str(error)) from None

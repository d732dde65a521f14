"""One pass over the stored bytes of an object that checks all that can be checked of the whole."""

import hashlib
from typing import Protocol

import trio

from backgate.fs.formats.xen_orchestra.crypto import IV, OVERHEAD, TAG, NotAuthentic, Opener, Stream
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source
from backgate.gateway.units import KIB, MIB

STEP = 8 * MIB  # bytes read at a time where nobody asks for them
CHECKSUM_MAX = 4 * KIB  # bytes of a checksum file
_ALGORITHMS = {"1": "md5", "5": "sha256", "6": "sha512"}


class Digest(Protocol):
    """What a checksum is made with."""

    def update(self, data: Data, /) -> None:
        """Take the next bytes."""

    def hexdigest(self) -> str:
        """Return the checksum of all that was taken."""


def checksum_in(content: Data) -> tuple[Digest, str] | None:
    """Return the digest and its value that a `.checksum` file names: `$1$$<hex>`; None: neither."""
    parts = bytes(content).decode("ascii", "replace").strip().split("$")
    if len(parts) != 4 or parts[1] not in _ALGORITHMS:
        return None
    return hashlib.new(_ALGORITHMS[parts[1]], usedforsecurity=False), parts[3].lower()


class Witness:
    """A `Source` of what an object holds, read from start to end, for one reader.

    What is passed over is read too; `finish` reads the rest, and says whether all is right.
    """

    def __init__(
        self,
        info: ObjectInfo,
        sequential: Source,
        opener: Opener | None,
        checksum: tuple[Digest, str] | None,
        workers: trio.CapacityLimiter,
    ) -> None:
        self._info, self._sequential, self._opener = info, sequential, opener
        self._checksum, self._workers = checksum, workers
        self.size = info.size if opener is None else max(0, info.size - OVERHEAD)
        self._stream: Stream | None = None
        self._at = 0  # of what the object holds

    async def read_at(self, offset: int, length: int) -> Data:
        """Return bytes that nobody was given before; `offset` never goes back."""
        if offset < self._at:
            raise Damaged(self._info.key, offset, "read twice in one pass")
        while self._at < offset:
            await self._next(min(STEP, offset - self._at))
        return await self._next(min(length, self.size - offset))

    async def finish(self, damaged: int) -> None:
        """Read what is left; `Damaged` unless the whole is what its tag and checksum say.

        With `damaged` parts, that are known each, the checksum cannot be right.
        """
        while self._at < self.size:
            await self._next(min(STEP, self.size - self._at))
        if self._stream is not None:
            tag = bytes(await self._stored(self._info.size - TAG, TAG))
            try:
                self._stream.verify(tag)
            except NotAuthentic as error:
                raise Damaged(self._info.key, None, str(error)) from None
        if (
            self._checksum is not None
            and not damaged
            and self._checksum[0].hexdigest() != self._checksum[1]
        ):
            raise Damaged(self._info.key, None, "it is not what its .checksum file says")

    async def _next(self, length: int) -> Data:
        if length <= 0:
            await trio.lowlevel.checkpoint()
            return b""
        if self._opener is None:
            data = await self._stored(self._at, length)
        else:
            if self._stream is None:
                self._stream = self._opener.stream(bytes(await self._stored(0, IV)))
            sealed = await self._stored(IV + self._at, length)
            data = await trio.to_thread.run_sync(self._stream.update, sealed, limiter=self._workers)
        self._at += length
        return data

    async def _stored(self, offset: int, length: int) -> Data:
        data = await self._sequential.read_at(offset, length)
        if len(data) != length:
            raise Damaged(self._info.key, offset + len(data), "the object ends too early")
        if self._checksum is not None:
            update = self._checksum[0].update
            await trio.to_thread.run_sync(update, data, limiter=self._workers)
        return data

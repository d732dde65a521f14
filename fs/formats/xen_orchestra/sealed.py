"""A large encrypted object as a source of what it holds, of which any range can be read.

An object is one message with one tag at its end: it is read once from start to end and verified,
and only then is a byte of it given. After that, ranges are decrypted alone; the store is asked for
the version that was verified.
"""

import trio

from backgate.fs.format import Objects
from backgate.fs.formats.xen_orchestra.crypto import (
    IV,
    MESSAGE_MAX,
    OVERHEAD,
    STREAM_BLOCK,
    TAG,
    NotAuthentic,
    Opener,
)
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data
from backgate.gateway.units import MIB

STEP = 8 * MIB  # bytes verified at a time


class SealedSource:
    """The plain bytes of the object `info`; `is_verified` when that was done before."""

    def __init__(
        self,
        objects: Objects,
        info: ObjectInfo,
        opener: Opener,
        workers: trio.CapacityLimiter,
        *,
        is_verified: bool = False,
    ) -> None:
        if not OVERHEAD <= info.size <= MESSAGE_MAX[opener.algorithm]:
            raise Damaged(info.key, None, f"{info.size} bytes cannot be an encrypted object")
        self.size = info.size - OVERHEAD
        self._objects, self._info, self._opener, self._workers = objects, info, opener, workers
        self._source = objects.source(info)
        self._is_verified = is_verified
        self._verifying = trio.Lock()
        self._iv = b""

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset`, fewer only where the object ends.

        Raises `Damaged` when the object is not authentic, `StoreError`.
        """
        await self.verify()
        return await self.unverified(offset, length)

    async def verify(self) -> None:
        """Return once the whole object was verified; `Damaged`, `StoreError`."""
        async with self._verifying:
            if self._is_verified:
                return
            stream = self._opener.stream(await self._nonce())
            stop = self._info.size - TAG
            with self._objects.sequential(self._info) as sequential:
                for at in range(IV, stop, STEP):
                    data = await sequential.read_at(at, min(STEP, stop - at))
                    await trio.to_thread.run_sync(stream.update, data, limiter=self._workers)
                tag = bytes(await sequential.read_at(stop, TAG))
            try:
                stream.verify(tag)
            except NotAuthentic as error:
                raise Damaged(self._info.key, None, str(error)) from None
            self._is_verified = True

    async def unverified(self, offset: int, length: int) -> Data:
        """The same as `read_at`, of bytes that may turn out not to be authentic."""
        stop = min(offset + length, self.size)
        if offset >= stop:
            await trio.lowlevel.checkpoint()
            return b""
        begin = offset // STREAM_BLOCK * STREAM_BLOCK
        iv = await self._nonce()
        sealed = await self._source.read_at(IV + begin, stop - begin)
        plain = await trio.to_thread.run_sync(
            self._opener.decrypted, iv, begin, sealed, limiter=self._workers
        )
        return memoryview(plain)[offset - begin :]

    async def _nonce(self) -> bytes:
        if not self._iv:
            self._iv = bytes(await self._source.read_at(0, IV))
        return self._iv

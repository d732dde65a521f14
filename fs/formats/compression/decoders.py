"""Decompressors that stand somewhere in an object, so that reading on does not start again.

All objects of a format share them, within one limit of memory: what idles longest goes first, and
who needs more than is free waits.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from backgate.fs.formats.compression.codec import Restart

AT_ONCE = 4  # threads that decompress or wait for compressed bytes


@dataclass(slots=True)
class Decoder:
    """One decompressor: it has given all plain bytes of its unit before `plain`."""

    plain: int
    chunks: Iterator[Restart | bytes]
    left: bytes = b""  # what it gave beyond `plain`


class Decoders:
    """The decompressors in use and those kept, which together hold `limit` bytes or one of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._idle: OrderedDict[object, tuple[Decoder, int]] = OrderedDict()
        self._freed = trio.Event()
        self.threads = trio.CapacityLimiter(AT_ONCE)

    def keep(self, key: object, decoder: Decoder, memory: int) -> None:
        """Keep a decompressor of `memory` bytes for whoever asks for `key` next."""
        self._forget(key)
        self._idle[key] = decoder, memory
        self._used += memory

    def take(self, key: object, plain: int) -> Decoder | None:
        """Take out the one kept for `key`; None unless it stands at or before `plain`."""
        decoder = self._forget(key)
        return decoder if decoder is not None and decoder.plain <= plain else None

    @asynccontextmanager
    async def room(self, memory: int) -> AsyncIterator[None]:
        """Wait until `memory` bytes may be used, and hold them until the context is left."""
        while self._used and self._used + memory > self._limit:
            if self._idle:
                self._forget(next(iter(self._idle)))
            else:
                await self._freed.wait()
        self._used += memory
        try:
            yield
        finally:
            self._release(memory)

    def _forget(self, key: object) -> Decoder | None:
        decoder, memory = self._idle.pop(key, (None, 0))
        if memory:
            self._release(memory)
        return decoder

    def _release(self, memory: int) -> None:
        self._used -= memory
        self._freed.set()
        self._freed = trio.Event()

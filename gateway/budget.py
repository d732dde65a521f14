"""Bounds what all open files together hold in memory ahead of their readers."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import trio

from backgate.gateway.units import MIB

LIMIT = 80 * MIB  # bytes; four long segments on their way and one being handed over
IDLE = 5.0  # seconds after which a reader no longer counts as one of those who share
PUSHERS = 8  # threads that push; one may have to wait for a slow read of the same page
NOTHING = memoryview(b"")

Piece: TypeAlias = tuple[int, memoryview]  # offset in the source, bytes


class Segment:
    """A stretch of a source ahead of its reader, on its way or here."""

    def __init__(self, owner: Hashable, start: int, stop: int) -> None:
        self.owner, self.start, self.stop = owner, start, stop
        self.pieces: list[Piece] = []  # ascending; once it has ended: all of it, or what was kept
        self.pushed: list[range] = []  # ascending; what the kernel was given
        self.ended = trio.Event()  # it may be read, or asked for again
        self.handed = trio.Event()  # the kernel has got of it what it gets
        self.scope = trio.CancelScope()
        self.readers = 0  # reads that wait for it

    @property
    def size(self) -> int:
        """The bytes of the stretch."""
        return self.stop - self.start

    def at(self, offset: int) -> memoryview:
        """Return what is held from `offset` on, as far as it goes; nothing when it is not held."""
        for start, data in self.pieces:
            if start <= offset < start + len(data):
                return data[offset - start :]
        return NOTHING


class Budget:
    """The bytes that may be held; they are taken or refused, never waited for."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.used = limit, 0
        self.pushers = trio.CapacityLimiter(PUSHERS)
        self._held: OrderedDict[Segment, int] = OrderedDict()  # size; the longest unread first
        self._active: WeakKeyDictionary[Hashable, float] = WeakKeyDictionary()  # when it last read

    def share(self, owner: Hashable) -> int:
        """Return how many bytes `owner`, which is reading now, may hold at most."""
        now = trio.current_time()
        self._active[owner] = now
        return self.limit // sum(now - last < IDLE for last in self._active.values())

    def take(self, segment: Segment) -> bool:
        """Make room for `segment`, if need be at the cost of what others left unread.

        False, and nothing changed, when its owner would hold more than its share.
        """
        held = sum(size for other, size in self._held.items() if other.owner is segment.owner)
        if held + segment.size > self.share(segment.owner):
            return False
        for other in list(self._held):
            if self.used + segment.size <= self.limit:
                break
            if other.ended.is_set() and other.owner is not segment.owner:
                self.give(other)
        if self.used + segment.size > self.limit:
            return False
        self.used += segment.size
        self._held[segment] = segment.size
        return True

    def touch(self, segment: Segment) -> None:
        """Note that `segment` was read."""
        if segment in self._held:
            self._held.move_to_end(segment)

    def shrink(self, segment: Segment, kept: Sequence[range]) -> None:
        """Keep of `segment` only what lies in those ranges."""
        if segment not in self._held:
            return
        pieces = [(one.start, segment.at(one.start)[: len(one)]) for one in kept if one]
        segment.pieces = [(start, memoryview(bytes(data))) for start, data in pieces]
        size = sum(len(data) for _, data in pieces)  # copied: a slice would hold the whole
        self.used -= self._held[segment] - size
        self._held[segment] = size

    def give(self, segment: Segment) -> None:
        """Take back what `segment` holds; nothing the second time."""
        segment.pieces = []
        self.used -= self._held.pop(segment, 0)

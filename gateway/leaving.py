"""Back-pressure: bytes leave the spool's disk for the store, and writers wait until they have.

From half of the limit on, of a large one from half a gigabyte below it, parts of growing files
leave for hidden objects. At the limit a writer waits until something has left, or was stored. When
nothing can leave, because all files are open and shorter than a part, the limit is exceeded:
waiting for ever would help nobody. A disk that is full below the limit lowers it.
"""

import logging
from typing import Protocol

import trio

from backgate.gateway.errors import BackgateError, StoreFull
from backgate.gateway.parts import Part, PartPlan
from backgate.gateway.room import Room
from backgate.gateway.shelf import Shelf
from backgate.gateway.spooled import SpooledFile
from backgate.gateway.units import size_to_text
from backgate.gateway.upload import Uploader

AT_ONCE = 4  # parts of one file; enough to fill a link, and no more is sent twice than needed

log = logging.getLogger(__name__)


class Storing(Protocol):
    """Who stores closed files."""

    @property
    def is_moving(self) -> bool:
        """True while files are being stored that did not fail before."""

    @property
    def fault(self) -> str:
        """Why a closed file could not be stored; empty when all could."""


class Leaving:
    """What leaves one spool to make room."""

    def __init__(self, room: Room, shelf: Shelf, uploader: Uploader, nursery: trio.Nursery) -> None:
        self._room, self._shelf = room, shelf
        self._uploader, self._nursery = uploader, nursery
        self._leaving: set[tuple[int, Part]] = set()  # file's number, part
        self._fault: BackgateError | OSError | None = None
        self._is_exceeded = False

    async def room(self, size: int, storing: Storing) -> None:
        """Return when `size` bytes more fit, or when only files that are open keep them from it.

        Raises `StoreError` when what should leave could not be stored before the deadline, and
        `StoreFull` when nothing can leave because closed files cannot be stored.
        """
        while self._room.used + size > self._room.limit:
            self._fault = None
            if self._free():
                continue
            if not (self._is_moving() or storing.is_moving):
                self._expect_no_failed(storing)
                self._exceed()
                return
            await self._room.change()
            if self._fault is not None:
                raise self._fault
        self._is_exceeded = False

    async def freed(self, storing: Storing) -> bool:
        """Return True when a disk that is full may hold more now; False when nothing can leave it.

        Raises as `room`.
        """
        self._room.disk_is_full()
        self._fault = None
        if self._free():
            return True
        if not (self._is_moving() or storing.is_moving):
            self._expect_no_failed(storing)
            return False
        await self._room.change()
        if self._fault is not None:
            raise self._fault
        return True

    def leave(self, file: SpooledFile) -> bool:
        """Let full parts of `file` leave in the background; False when none can."""
        parts = [
            part
            for part in full_parts(file, self._uploader.plan)
            if (file.number, part) not in self._leaving and not file.is_on_way(part)
        ]
        for part in parts[:AT_ONCE]:
            self._leaving.add((file.number, part))
            self._nursery.start_soon(self._put_aside, file, part)
        return bool(parts)

    def _free(self) -> bool:
        """Free what is stored as it is; False when there is nothing."""
        before = self._room.used
        for file in self._shelf:
            if not file.is_dirty and file.local.total and not file.is_sending:
                file.release_clean()
        return self._room.used < before

    def _is_moving(self) -> bool:
        return bool(self._uploader.ahead or self._leaving) or self._begin()

    def _begin(self) -> bool:
        """Let parts of the largest file leave that has full ones; False without any."""
        by_size = sorted(self._shelf, key=lambda file: file.local.total, reverse=True)
        return any(self.leave(file) for file in by_size)

    async def _put_aside(self, file: SpooledFile, part: Part) -> None:
        try:
            await self._uploader.put_aside(file, part)
        except (BackgateError, OSError) as error:
            self._fault = error
        finally:
            self._leaving.discard((file.number, part))
            self._room.changed()

    def _expect_no_failed(self, storing: Storing) -> None:
        if storing.fault:
            raise StoreFull(f"the spool is full of what cannot be stored: {storing.fault}")

    def _exceed(self) -> None:
        if not self._is_exceeded:
            self._is_exceeded = True
            log.warning(
                "the spool is full, %s of %s, with files that cannot leave in parts: going on",
                size_to_text(self._room.used),
                size_to_text(self._room.limit),
            )


def full_parts(file: SpooledFile, plan: PartPlan) -> list[Part]:
    """Return the parts of `file` of which the disk holds every byte."""
    parts = []
    for start, stop in file.local:
        number = plan.number_at(start)
        if plan.part(number).start < start:
            number += 1
        while (part := plan.part(number)).stop <= stop:
            parts.append(part)
            number += 1
    return parts

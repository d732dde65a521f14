"""The disks of a backup, and whether those that could not be opened can be by now."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from backgate.gateway.errors import BackgateError
from backgate.gateway.source import Source

RAW = "raw"  # the kind of a disk whose source has its bytes as they are
TRY_AGAIN = 600.0  # seconds after which what cannot be opened is looked at anew
LOOK_AGAIN = 10.0  # seconds after which it is asked whether a disk can be opened by now
LOOK_PATIENCE = 2.0  # seconds that this may take

Again: TypeAlias = Callable[[], Awaitable[object]]
Sibling: TypeAlias = Callable[[str], Awaitable[Source | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDisk:
    """One disk of a backup. `source` has its bytes, or those of the container it comes in."""

    name: str  # unique among them, and can be a file's name
    source: Source
    mtime_ns: int
    kind: str = RAW  # "raw", or the container: "qcow2", "vmdk", "vhdx"
    sibling: Sibling | None = None  # finds a file beside the container by the name it gives
    allocated: int | None = None  # bytes that are stored, for st_blocks; None: all
    problem: str = ""  # why it cannot be read at all
    again: Again | None = None  # opens it anew, or raises: what has kept it may have passed
    notes: Mapping[str, str] = field(default_factory=dict)


class LostDisks:
    """Those of `disks` that could not be opened."""

    def __init__(self, disks: Sequence[NamedDisk]) -> None:
        self._disks = disks
        self._numbers = {number for number, disk in enumerate(disks) if disk.problem}
        self._opened_at = trio.current_time()
        self._look_at = self._opened_at + LOOK_AGAIN
        self._has_come = False

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def add(self, number: int) -> None:
        """Note that the disk `number` cannot be opened either."""
        self._numbers.add(number)

    async def have_come(self) -> bool:
        """True once one of them can be opened; that is looked at every `LOOK_AGAIN` seconds."""
        if self._numbers and trio.current_time() >= self._look_at:
            self._look_at = trio.current_time() + LOOK_AGAIN
            with trio.move_on_after(LOOK_PATIENCE):
                for number in sorted(self._numbers):
                    if await self._can_be_opened(number):
                        self._has_come = True
        return self._has_come

    async def _can_be_opened(self, number: int) -> bool:
        again = self._disks[number].again
        if again is None:  # only the parser could tell
            return trio.current_time() >= self._opened_at + TRY_AGAIN
        try:
            await again()
        except BackgateError:
            return False
        return True

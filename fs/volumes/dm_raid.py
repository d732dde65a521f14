"""What the members of a device-mapper RAID say of themselves: a superblock, and a bitmap behind it.

The superblock tells which of them have every write; the bitmap where a write was under way, so that
parity may not be that of its data.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.gateway.errors import Damaged

SUPERBLOCK = struct.Struct("<4sIIIQQQQ")
MAGIC = b"DmRd"
SECTOR = 512  # bytes
WHOLE = (1 << 64) - 1  # as where a recovery has come: there is none
BITMAP = struct.Struct("<4s36xQII")  # magic, sectors it is for, state, bytes that a bit is for
BITMAP_MAGIC = b"bitm"
BITMAP_AT, BITS_AT = 4096, 4096 + 256  # bytes
STALE = 1  # the bit of a bitmap's state that says that it is out of date
BITS_MAX = 8 << 20  # bytes of bits that are looked at
LAG_MAX = 1  # events; a machine may die after writing the first of two superblocks


class _State(NamedTuple):
    position: int
    events: int
    failed: int  # a bit for each member
    recovered: int  # how far, in sectors; `WHOLE` when it never was away
    synchronized: int  # how far parity is that of the data, in sectors; `WHOLE`: everywhere


class Doubt(NamedTuple):
    """Where a write was under way, so that parity may not be that of the data beside it."""

    bits: bytes  # the lowest first
    region: int  # bytes of each member that a bit is for

    def covers(self, start: int, stop: int) -> bool:
        """True when some of the bytes from `start` to `stop` of the members are in doubt."""
        numbers = range(start // self.region, min(-(-stop // self.region), 8 * len(self.bits)))
        return any(self.bits[number >> 3] >> (number & 7) & 1 for number in numbers)


def trusted(headers: Sequence[Device | None]) -> list[bool]:
    """Return for each member whether it has all that was written.

    `headers` are the volumes with the superblocks, None for a member that is missing. Without any
    superblock (the RAID was never used) all are taken.
    """
    states = [None if header is None else _state(header) for header in headers]
    known = [state for state in states if state is not None]
    if not known:
        return [header is not None for header in headers]
    newest = max(known, key=lambda state: state.events)
    return [_is_fit(state, at, newest) for at, state in enumerate(states)]


def was_synchronized(headers: Sequence[Device | None]) -> bool:
    """True when members that say so have once been made equal, or parity that of the data."""
    states = [_state(header) for header in headers if header is not None]
    return all(state is None or state.synchronized == WHOLE for state in states)


def doubts(headers: Sequence[Device | None]) -> list[Doubt]:
    """Return where a write was under way; `Damaged` when a bitmap cannot tell."""
    found = (None if header is None else _doubt(header) for header in headers)
    return [doubt for doubt in found if doubt is not None]


def _doubt(header: Device) -> Doubt | None:
    raw = header.read_at(BITMAP_AT, BITMAP.size)
    if len(raw) < BITMAP.size or not raw.startswith(BITMAP_MAGIC):
        return None
    _, sectors, state, region = BITMAP.unpack(raw)
    count = -(-sectors * SECTOR // region) if region else 0
    if state & STALE or not 0 < count <= 8 * BITS_MAX:
        raise Damaged("RAID", None, "nothing tells where parity may be out of date")
    bits = header.read_at(BITS_AT, -(-count // 8))
    used = int.from_bytes(bits, "little") & (1 << count) - 1  # all bits behind these are set
    return Doubt(used.to_bytes(len(bits), "little"), region) if used else None


def _state(header: Device) -> _State | None:
    try:
        raw = header.read_at(0, SUPERBLOCK.size)
    except Damaged:
        return None
    if len(raw) < SUPERBLOCK.size or not raw.startswith(MAGIC):
        return None
    _, _, _, *told = SUPERBLOCK.unpack(raw)
    return _State(*told)


def _is_fit(state: _State | None, at: int, newest: _State) -> bool:
    if state is None or state.position != at or newest.failed >> at & 1:
        return False
    return state.events + LAG_MAX >= newest.events and state.recovered == WHOLE

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


def is_being_written(headers: Sequence[Device | None]) -> bool:
    """True when a write was under way, so that parity may not be that of the data."""
    return any(_is_being_written(header) for header in headers if header is not None)


def _is_being_written(header: Device) -> bool:
    """True when the bitmap of `header` has a bit, or cannot be told."""
    raw = header.read_at(BITMAP_AT, BITMAP.size)
    if len(raw) < BITMAP.size or not raw.startswith(BITMAP_MAGIC):
        return False  # there is none
    _, sectors, state, chunk = BITMAP.unpack(raw)
    bits = -(-sectors * SECTOR // chunk) if chunk else 0
    if state & STALE or not 0 < bits <= 8 * BITS_MAX:
        return True
    found = int.from_bytes(header.read_at(BITS_AT, -(-bits // 8)), "little")
    return found & (1 << bits) - 1 != 0  # behind the last one that is used they are all set


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

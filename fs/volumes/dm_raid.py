"""Which members of a device-mapper RAID have every write, by the superblock of each."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.gateway.errors import Damaged

SUPERBLOCK = struct.Struct("<4sIIIQQQ")
MAGIC = b"DmRd"
WHOLE = (1 << 64) - 1  # as where a recovery has come: there is none
LAG_MAX = 1  # events; a machine may die after writing the first of two superblocks


class _State(NamedTuple):
    position: int
    events: int
    failed: int  # a bit for each member
    recovered: int  # how far, in sectors; `WHOLE` when it never was away


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


def _state(header: Device) -> _State | None:
    try:
        raw = header.read_at(0, SUPERBLOCK.size)
    except Damaged:
        return None
    if len(raw) < SUPERBLOCK.size or not raw.startswith(MAGIC):
        return None
    _, _, _, position, events, failed, recovered = SUPERBLOCK.unpack(raw)
    return _State(position, events, failed, recovered)


def _is_fit(state: _State | None, at: int, newest: _State) -> bool:
    if state is None or state.position != at or newest.failed >> at & 1:
        return False
    return state.events + LAG_MAX >= newest.events and state.recovered == WHOLE

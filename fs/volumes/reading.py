"""Reads of structures from a device that may be too short for what it claims."""

from backgate.fs.volume import Device
from backgate.gateway.errors import Damaged


def read_exactly(device: Device, offset: int, length: int, what: str) -> bytes:
    """Return `length` bytes at `offset`; `Damaged` when `what` lies beyond the end of `device`."""
    data = device.read_at(offset, length) if 0 <= offset < device.size else b""
    if len(data) < length:
        raise Damaged(what, offset, f"{length} bytes do not fit in a device of {device.size} bytes")
    return data

"""The bitmap in front of each block of a VHD: which of its sectors the image has."""

from collections.abc import Iterator

from backgate.fs.disks.vhd_format import SECTOR
from backgate.gateway.source import Data


def is_full(bitmap: Data, sectors: int) -> bool:
    """True when every one of the first `sectors` bits is set: what all writers of today write."""
    whole, rest = divmod(sectors, 8)
    full = bytes(bitmap[:whole]) == b"\xff" * whole
    mask = 0xFF00 >> rest & 0xFF
    return full and (not rest or bitmap[whole] & mask == mask)


def stretches(bitmap: Data, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
    """Give the stretches (start, stop, present?) of `[start, stop)`, in bytes of the block."""
    at = start
    while at < stop:
        present = _is_set(bitmap, at // SECTOR)
        end = (at // SECTOR + 1) * SECTOR
        while end < stop and _is_set(bitmap, end // SECTOR) == present:
            end += SECTOR
        end = min(end, stop)
        yield at, end, present
        at = end


def _is_set(bitmap: Data, sector: int) -> bool:
    return bool(bitmap[sector >> 3] & 0x80 >> (sector & 7))

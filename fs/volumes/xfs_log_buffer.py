"""What the log of XFS says of a buffer: which pieces of it changed, and if that still counts."""

from collections.abc import Sequence

from backgate.fs.volumes.xfs_log_inode import NO_LSNS
from backgate.gateway.errors import Damaged

_GRAIN = 128  # bytes that a bit of the map stands for
_LSN_PLACES = {  # of a kind of block by its magic: where its lsn and the file system's uuid are
    b"XFSB": (240, 32),
    b"XDB3": (16, 24),
    b"XDD3": (16, 24),
    b"XDF3": (16, 24),
    b"BMA3": (32, 40),
    b"XSLM": (48, 16),
}
_INDEX_MAGICS, _INDEX_PLACES = {b"\x3d\xf1", b"\x3d\xff", b"\x3e\xbe", b"\x3b\xee"}, (24, 32)
_NOT_READ = {  # of trees of free space, of inodes and of owners, also of version 4
    *(b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"RMB3", b"R3FC"),
    *(b"ABTB", b"ABTC", b"IABT", b"FIBT"),
}


def is_read(block: bytes | bytearray) -> bool:
    """Tell of a block of a tree whether a reader looks into trees of its kind."""
    return bytes(block[:4]) not in _NOT_READ


def patch(data: bytearray, bits: int, regions: Sequence[bytes]) -> None:
    """Put the regions where `bits` says that the buffer changed, in runs of set bits."""
    at = 0
    for region in regions:
        left = bits >> at
        if not left:
            return
        at += (left & -left).bit_length() - 1
        left = bits >> at
        run = min((left ^ (left + 1)).bit_length() - 1, len(region) // _GRAIN)
        start, stop = at * _GRAIN, (at + run) * _GRAIN
        if not run or stop > len(data):
            raise Damaged("log", None, "a buffer changed where it has no bytes")
        data[start:stop] = region[: stop - start]
        at += run


def block_lsn(data: bytes | bytearray, uuid: bytes) -> int:
    """Return the lsn that a block says it is of; 0 where it says none that counts."""
    places = _LSN_PLACES.get(bytes(data[:4]))
    if places is None and bytes(data[8:10]) in _INDEX_MAGICS:
        places = _INDEX_PLACES
    if places is None or data[places[1] : places[1] + len(uuid)] != uuid:
        return 0
    lsn = int.from_bytes(data[places[0] : places[0] + 8], "big")
    return 0 if lsn in NO_LSNS else lsn

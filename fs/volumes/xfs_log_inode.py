"""What the log of XFS says of an inode, put into the form that lies on the disk."""

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from backgate.fs.volumes.xfs_geometry import Geometry
from backgate.fs.volumes.xfs_inode import MAGIC
from backgate.gateway.errors import Damaged

NO_LSNS = (0, (1 << 64) - 1)  # of what the log has never seen

# The log has an inode's core in the byte order of the machine, the disk in the other one.
_CORE = "HHBBHIIIHHQ{time}{time}{time}QQIIHBbIHHII"
_MORE = "IQQQI12s{time}Q16s"  # from version 3 on
_OLD_TIME, _BIG_TIME = "II", "Q"
_LAYOUTS = {  # in the log and on the disk, by whether it is of version 3, and its times are big
    (False, False): _CORE.format(time=_OLD_TIME),
    (True, False): (_CORE + _MORE).format(time=_OLD_TIME),
    (True, True): (_CORE + _MORE).format(time=_BIG_TIME),
}
_CORES = {key: (Struct("<" + form), Struct(">" + form)) for key, form in _LAYOUTS.items()}
_VERSION_AT, _FLUSHES_AT, _LSN_AT, _FLAGS_AT = 4, 30, 112, 120
_FORK_AT = 82
_OLD_SIZE, _NEW_SIZE = 100, 176  # bytes
_BIG_TIMES = 0x8
_FLUSHES, _FLUSHES_MAX = Struct("<H"), 0xFFFF
_NEXT_UNLINKED_AT, _GENERATION_AT, _NUMBER_AT, _UUID_AT = 96, 92, 152, 160

_LITTLE_MAGIC = MAGIC[::-1]
_ROOT, _POINTERS = Struct(">HH"), 8  # bytes of a key and of a pointer
_DEVICE = 0x10
_DATA, _ATTRIBUTES = 0x2 | 0x4 | 0x8, 0x40 | 0x80 | 0x100  # fields: local, extents, tree
_DATA_TREE, _ATTRIBUTES_TREE = 0x8, 0x100


class LoggedInode(NamedTuple):
    """An inode in the log."""

    number: int
    fields: int  # which parts of it there are
    device: bytes  # its number, of a device
    regions: Sequence[bytes]  # the core, and its forks where they changed


def replayed_inode(old: bytes, logged: LoggedInode, lsn: int, layout: Geometry) -> bytes | None:
    """Return what `old` becomes; None where it is of a later time than the log."""
    core = logged.regions[0] if logged.regions else b""
    is_new = len(core) > _VERSION_AT and core[_VERSION_AT] >= 3
    size = _NEW_SIZE if is_new else _OLD_SIZE
    if len(core) < size or not core.startswith(_LITTLE_MAGIC) or not old.startswith(MAGIC):
        raise Damaged("log", None, f"inode {logged.number} in it, or on the disk, is none")
    if _is_later(old, core, lsn, is_new):
        return None
    new = bytearray(old)
    new[:size] = _core(core, lsn, is_new)
    fork_at = size + core[_FORK_AT] * 8 if core[_FORK_AT] else len(new)
    if fork_at > len(new):
        raise Damaged("log", None, f"the forks of inode {logged.number} do not fit in it")
    forks = list(logged.regions[1:])
    if logged.fields & _DEVICE:
        new[size : size + 4] = logged.device[3::-1]
    if logged.fields & _DATA and forks:
        is_tree = bool(logged.fields & _DATA_TREE)
        _put(new, size, fork_at, forks.pop(0), layout.tree_header if is_tree else None)
    if logged.fields & _ATTRIBUTES and forks:
        is_tree = bool(logged.fields & _ATTRIBUTES_TREE)
        _put(new, fork_at, len(new), forks.pop(0), layout.tree_header if is_tree else None)
    return bytes(new)


def new_inodes(first: int, count: int, generation: int, layout: Geometry) -> bytes:
    """Return inodes that have just been made and are not in use, numbered from `first` on."""
    new = bytearray(layout.inode_size)
    new[:2], new[_VERSION_AT] = MAGIC, 3
    new[_GENERATION_AT : _GENERATION_AT + 4] = generation.to_bytes(4, "big")
    new[_NEXT_UNLINKED_AT : _NEXT_UNLINKED_AT + 4] = b"\xff" * 4
    new[_UUID_AT : _UUID_AT + 16] = layout.meta_uuid
    before, behind = bytes(new[:_NUMBER_AT]), bytes(new[_UUID_AT:])
    return b"".join(
        before + number.to_bytes(8, "big") + behind for number in range(first, first + count)
    )


def _is_later(old: bytes, core: bytes, lsn: int, is_new: bool) -> bool:
    if is_new:
        on_disk = int.from_bytes(old[_LSN_AT : _LSN_AT + 8], "big")
        return old[_VERSION_AT] >= 3 and on_disk not in NO_LSNS and on_disk > lsn
    (logged,) = _FLUSHES.unpack_from(core, _FLUSHES_AT)
    on_disk = int.from_bytes(old[_FLUSHES_AT : _FLUSHES_AT + 2], "big")
    began_again = on_disk == _FLUSHES_MAX and logged < _FLUSHES_MAX // 2
    return bool(logged < on_disk and not began_again)


def _core(core: bytes, lsn: int, is_new: bool) -> bytes:
    flags = int.from_bytes(core[_FLAGS_AT : _FLAGS_AT + 8], "little") if is_new else 0
    logged, on_disk = _CORES[is_new, bool(flags & _BIG_TIMES)]
    new = bytearray(on_disk.pack(*logged.unpack_from(core)))
    new[6:8] = bytes(2)  # links as version 1 counted them
    if is_new:
        new[_LSN_AT : _LSN_AT + 8] = lsn.to_bytes(8, "big")
    else:
        new[24:32] = bytes(8)  # flushes are counted anew
    return bytes(new)


def _put(new: bytearray, start: int, stop: int, fork: bytes, tree_header: int | None) -> None:
    if tree_header is not None:
        fork = _root(fork, stop - start, tree_header)
    if len(fork) > stop - start:
        raise Damaged("log", None, "the fork of an inode does not fit into it")
    new[start : start + len(fork)] = fork


def _root(fork: bytes, size: int, header: int) -> bytes:
    """Return the root of a tree as it stands in an inode, from how it stood in memory."""
    level, count = _ROOT.unpack_from(fork, 4) if len(fork) >= header else (0, 0)
    room = (size - _ROOT.size) // (2 * _POINTERS)
    had_room = (len(fork) - header) // (2 * _POINTERS)
    if not count or count > min(room, had_room):
        raise Damaged("log", None, "the root of a tree does not hold together")
    keys = fork[header : header + count * _POINTERS]
    pointers_at = header + had_room * _POINTERS
    pointers = fork[pointers_at : pointers_at + count * _POINTERS]
    root = _ROOT.pack(level, count) + keys.ljust(room * _POINTERS, b"\0") + pointers
    return root.ljust(size, b"\0")

"""What a worker answered, once it is decoded: is it an answer to what was asked, and can it be?

The worker has read untrusted bytes, and may by now be whatever they made of it. Nothing of it is
taken for granted: names are names, numbers are in their range, and bytes lie inside of the disks.
"""

import errno
import stat
from collections.abc import Sequence
from typing import TypeVar

from msgspec.structs import replace

from backgate.fs.parser.messages import (
    Bytes,
    Failed,
    Lying,
    Nodes,
    Notes,
    Said,
    Values,
    VolumeFacts,
    Volumes,
)
from backgate.fs.volume import ENCODED, HANDLE_MAX, HOLE, XATTR_MAX, Node
from backgate.gateway.errors import Damaged, FileError

NAME_MAX = 1024  # bytes; the most that FUSE takes. NTFS needs 3 for each of 255 characters
TARGET_MAX = 4096  # bytes; PATH_MAX
UINT32, UINT64 = 2**32, 2**64
SIZE_MAX = 2**63 - 1  # bytes; of a file

Answer = TypeVar("Answer")


class Garbage(Exception):
    """No answer to what was asked; the message says what is wrong with it."""


def answer_to(said: Said, kind: type[Answer]) -> Answer:
    """Return the answer, which is of `kind`; raise the error that it tells of.

    Raises `FileError` and `Damaged` as the file system said, and `Garbage`.
    """
    if isinstance(said, Failed):
        if said.errno == errno.ENOENT:
            raise FileError(errno.ENOENT)
        if said.errno:
            raise Garbage(f"no file system answers {said.errno}")
        raise Damaged(plain(said.where), said.offset, plain(said.reason))
    if not isinstance(said, kind):
        raise Garbage(f"{type(said).__name__} where {kind.__name__} was asked for")
    return said


def plain(text: str) -> str:
    """Return text without what a terminal might obey: it goes to logs and into README.txt."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def checked_notes(notes: Notes) -> Notes:
    """Return notes that can be printed."""
    return {plain(name): plain(text) for name, text in notes.items()}


def checked_nodes(nodes: Nodes, *, are_named: bool = True) -> Nodes:
    """Return the nodes; the root alone has no name. `Damaged` for names that no file can have."""
    for node in nodes.nodes:
        if are_named:
            _check_name(node.name)
        elif node.name:
            raise Garbage("a root with a name")
        _check_node(node)
    if len({node.name for node in nodes.nodes}) != len(nodes.nodes):
        raise Garbage("a name that comes twice")
    return nodes


def _check_name(name: bytes) -> None:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > NAME_MAX:
        raise Damaged("", None, f"the directory holds a name that no file can have: {name!r:.300}")


def _check_node(node: Node) -> None:
    kind = stat.S_IFMT(node.mode)
    is_known = stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)
    is_known = is_known or stat.S_ISCHR(kind) or stat.S_ISBLK(kind)
    is_known = is_known or stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)
    if not 0 <= node.mode < UINT32 or not is_known:
        raise Damaged("", None, f"{node.name!r}: no type of file has the mode {node.mode:o}")
    if len(node.handle) > HANDLE_MAX or len(node.inode) > HANDLE_MAX:
        raise Garbage(f"{node.name!r}: a handle of {len(node.handle)} bytes")
    numbers = (node.uid, node.gid, node.nlink)
    if any(not 0 <= number < UINT32 for number in numbers) or not 0 <= node.rdev < UINT64:
        raise Garbage(f"{node.name!r}: a number out of its range")
    if not 0 <= node.size <= SIZE_MAX or not 0 <= (node.allocated or 0) <= SIZE_MAX:
        raise Damaged("", None, f"{node.name!r}: no file can have {node.size} bytes")
    if node.target is not None and (len(node.target) > TARGET_MAX or b"\0" in node.target):
        raise Damaged("", None, f"{node.name!r}: no symlink can have such a target")
    if (node.target is None) == stat.S_ISLNK(kind) and not node.problem:
        raise Garbage(f"{node.name!r}: a target and no symlink, or the other way round")


def checked_values(values: Values) -> dict[bytes, bytes]:
    """Return extended attributes by name."""
    for name, value in values.values:
        if not 0 < len(name) <= NAME_MAX or b"\0" in name or len(value) > XATTR_MAX + 1:
            raise Garbage(f"an extended attribute that none can be: {name!r:.300}")
    return dict(values.values)


def checked_extents(
    lying: Lying, length: int, sizes: Sequence[int]
) -> Sequence[tuple[int, int, int]]:
    """Return extents, which together have at most `length` bytes; sources are of `sizes`."""
    for size, disk, offset in lying.extents:
        length -= size
        if size <= 0 or length < 0:
            raise Garbage(f"an extent of {size} bytes, or more than was asked for")
        if disk in (HOLE, ENCODED):
            continue
        if not 0 <= disk < len(sizes) or offset < 0 or offset + size > sizes[disk]:
            raise Garbage(f"an extent that lies on no disk: {size} bytes at {offset} of {disk}")
    return lying.extents


def checked_bytes(said: Bytes, length: int) -> bytes:
    """Return the bytes, at most `length`."""
    if len(said.data) > length:
        raise Garbage(f"{len(said.data)} bytes where {length} were asked for")
    return said.data


def checked_volumes(volumes: Volumes, disks: int) -> Volumes:
    """Return the volumes; their names can be names of files, their disks exist."""
    paths = {(volume.disk, *volume.path) for volume in volumes.volumes}
    if len(paths) != len(volumes.volumes):
        raise Garbage("a volume that comes twice")
    for volume in volumes.volumes:
        if any(number >= disks for number in (*volume.disks, volume.disk or 0)):
            raise Garbage("a volume on a disk that is none")
        for name in volume.path:
            _check_name(name.encode("utf-8", "replace"))
    return Volumes([_printable(volume) for volume in volumes.volumes])


def _printable(volume: VolumeFacts) -> VolumeFacts:
    return replace(
        volume,
        kind=plain(volume.kind),
        label=plain(volume.label),
        file_system=plain(volume.file_system),
        problem=plain(volume.problem),
        notes=checked_notes(volume.notes),
    )

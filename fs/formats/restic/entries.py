"""What stat(2) tells of a node, and where in its snapshot the node stands."""

import stat
from dataclasses import dataclass

import msgspec

from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.documents import (
    ID,
    ExtendedAttribute,
    Node,
    id_from_hex,
)
from backgate.fs.formats.restic.values import mode_from_go, name_from_go, time_ns_from_go
from backgate.fs.tree import Entry

NLINK_MAX = (1 << 32) - 1
TARGET_MAX = 4095  # bytes: PATH_MAX without its NUL
NOTHING = (b"", b"null", b"[]")  # JSON of an empty list, or of none

_content = msgspec.json.Decoder(list[str])
_attributes = msgspec.json.Decoder(list[ExtendedAttribute])


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands: number `number` of the directory `tree`, which is at `above`."""

    tree: bytes  # tree id; empty for the root itself
    number: int
    above: "Place | None"
    subtree: bytes | None = None  # tree id of a directory's own names
    error: str = ""  # what went wrong with it when it was backed up


def entry_of(node: Node, tree: bytes, number: int, above: Place) -> Entry:
    """Return the entry that `node` describes; `Unsound` when it makes no sense."""
    mode = mode_from_go(node.type, node.mode)
    is_directory, is_link = stat.S_ISDIR(mode), stat.S_ISLNK(mode)
    subtree = id_from_hex(node.subtree) if is_directory and node.subtree else None
    links = max(1, min(node.links, NLINK_MAX))
    target = _target(node) if is_link else None
    return Entry(
        name=name_from_go(node.name),
        mode=mode,
        size=len(target) if target is not None else node.size if stat.S_ISREG(mode) else 0,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=_time_ns(node.mtime),
        atime_ns=_time_ns(node.atime) if node.atime else None,
        ctime_ns=_time_ns(node.ctime) if node.ctime else None,
        nlink=links,
        rdev=node.device & NLINK_MAX if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else 0,
        target=target,
        # Inode numbers are those of one machine at one time: they mean something in one snapshot.
        identity=(node.device_id, node.inode) if links > 1 and not is_directory else None,
        node=Place(tree, number, above, subtree, node.error),
        has_xattrs=bytes(node.extended_attributes) not in NOTHING,
    )


def content_of(node: Node) -> bytes:
    """Return the ids of a file's blobs, one behind the other."""
    raw = bytes(node.content)
    if raw in NOTHING:
        return b""
    try:
        texts = _content.decode(raw)
        ids = bytes.fromhex("".join(texts))
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unsound(f"not a list of blobs: {error}") from None
    if len(ids) != ID * len(texts) or any(len(text) != 2 * ID for text in texts):
        raise Unsound("a blob id of the wrong length")
    return ids


def xattrs_of(node: Node) -> dict[bytes, bytes]:
    """Return a node's extended attributes."""
    raw = bytes(node.extended_attributes)
    if raw in NOTHING:
        return {}
    try:
        return {one.name.encode(): one.value or b"" for one in _attributes.decode(raw)}
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unsound(f"not extended attributes: {error}") from None


def _target(node: Node) -> bytes:
    # restic before 0.16 loses bytes of a target that are not UTF-8; later ones add the raw form.
    target = node.linktarget.encode() if node.linktarget_raw is None else node.linktarget_raw
    if not 0 < len(target) <= TARGET_MAX or b"\0" in target:
        raise Unsound(f"a symlink's target of {len(target)} bytes")
    return target


def _time_ns(text: str) -> int:
    return time_ns_from_go(text) if text else 0

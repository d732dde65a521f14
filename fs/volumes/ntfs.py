"""NTFS: compressed and sparse files, hard links, and what Windows keeps beside a file.

Alternate streams are extended attributes, `user.<stream>`; the attributes of Windows that say more
than "to be archived" are `user.ntfs.attributes`. A junction or an absolute symlink leads to a place
on some drive of Windows, taken to be this one: its target is told relative to where it lies.
"""

from collections.abc import Iterator
from typing import Any

from fs_explorer.tree import Node as Parsed

from backgate.fs.volume import XATTR_MAX
from backgate.fs.volumes.explorer import Explored, translated
from backgate.fs.volumes.replay import CLEAN, DIRTY, JOURNAL, NOT_REPLAYED, STATE

ATTRIBUTES = b"user.ntfs.attributes"
REPARSE_POINT = 0x400  # a link of Windows; symlinks of Unix are stored in another way
DEPTH = "depth"  # in the extra of a directory: how many lie above it
DULL = 0x20 | 0x80 | 0x10  # archive, normal, directory
VOLUME, VOLUME_INFORMATION = 3, 0x70  # the record and attribute that have the volume's flags
IS_DIRTY = 0x1
DATA, ENCRYPTED = 0x80, 0x4000  # the type of an attribute that has bytes of a file, and a flag
COMPRESSED_BY_WINDOWS, COMPRESSED_DATA = 0x80000017, "WofCompressedData"  # a reparse point's tag


class Ntfs(Explored):
    """NTFS."""

    name = "ntfs"
    driver = "fs_explorer.filesystems.ntfs:NTFSDriver"
    undecodable = "surrogatepass"
    sure = 80

    def _known(self) -> dict[str, str]:
        flags = self._tree._file(VOLUME).find(VOLUME_INFORMATION)
        is_dirty = flags is not None and len(flags.value) >= 12 and flags.value[10] & IS_DIRTY
        state = {STATE: DIRTY, JOURNAL: NOT_REPLAYED} if is_dirty else {STATE: CLEAN}
        return super()._known() | state

    def ref_fields(self, ref: Any) -> tuple[Any, ...]:
        return (*ref, 0)[:3]  # number, sequence; and how many directories lie above

    def ref_of(self, fields: list[Any]) -> Any:
        return tuple(fields)

    def _found_again(self, handle: bytes) -> Parsed:
        parsed = super()._found_again(handle)
        *parsed.ref, parsed.extra[DEPTH] = parsed.ref
        return parsed

    def _inode(self, parsed: Parsed, handle: bytes) -> bytes:
        return parsed.ref[0].to_bytes(8, "big")  # type: ignore[no-any-return]

    def _seen(self, parsed: Parsed, directory: Parsed) -> Parsed:
        depth = directory.extra[DEPTH]
        parsed.ref = (*parsed.ref, depth + 1)
        target = parsed.link_target
        if target is not None:
            if parsed.extra["attributes"] & REPARSE_POINT and target.startswith("/"):
                target = parsed.link_target = "../" * depth + target.lstrip("/") or "."
            parsed.size = len(self._bytes(target))
        return parsed

    def _has_xattrs(self, parsed: Parsed) -> bool:
        return bool(parsed.extra.get("streams") or parsed.extra.get("attributes", 0) & ~DULL)

    def xattrs(self, node: bytes) -> dict[bytes, bytes]:
        with translated():
            parsed = self._found_again(node)
            found = {b"user." + self._bytes(name): value for name, value in self._streams(parsed)}
            attributes = self._tree.stat(parsed).extra["attributes"]
        if attributes & ~DULL:
            found.setdefault(ATTRIBUTES, b"0x%08x" % attributes)
        return found

    def _streams(self, parsed: Parsed) -> Iterator[tuple[str, bytes]]:
        """Give the alternate streams, and of a long one no more than shows that it is too long."""
        record = self._tree._file(parsed.ref[0])
        tag, _ = self._tree._reparse(record)
        for one in record.attrs:
            is_hidden = tag == COMPRESSED_BY_WINDOWS and one.name == COMPRESSED_DATA
            is_stream = one.type == DATA and one.name and one.start_vcn == 0 and not is_hidden
            if is_stream and not one.flags & ENCRYPTED:
                opened = self._tree._attr_ra(one)
                yield one.name, bytes(opened.read_at(0, min(opened.size, XATTR_MAX + 1)))

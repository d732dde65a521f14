"""The members of an archive, one after another, as its headers describe them."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from backgate.fs.formats.tar import header, pax, sparse
from backgate.fs.formats.tar.archive import Forward
from backgate.fs.formats.tar.header import BLOCK, ZERO_BLOCK, BadHeader, Header, padded
from backgate.gateway.errors import Damaged
from backgate.gateway.units import MIB, SECOND_NS

EXTENDED_MAX = 16 * MIB  # bytes of one member's pax headers; a map of a million extents fits
SHARED_MAX = MIB  # bytes of the records that global headers set
LONG_NAME_MAX = MIB  # bytes; no kernel takes a path of more than 4 KiB at a time
TIME_MAX_NS = 2**63 - 1  # what SQLite and the kernel can hold; year 2262
ID_MASK = 0xFFFF_FFFF

_TYPES = {
    header.SYMLINK: stat.S_IFLNK,
    header.CHARACTER: stat.S_IFCHR,
    header.DEVICE: stat.S_IFBLK,
    header.DIRECTORY: stat.S_IFDIR,
    header.GNU_DUMPDIR: stat.S_IFDIR,
    header.FIFO: stat.S_IFIFO,
}
_WITHOUT_DATA = {
    header.SYMLINK,
    header.CHARACTER,
    header.DEVICE,
    header.DIRECTORY,
    header.FIFO,
}  # their size field, where it is not 0, is no size of data
_NOT_SHOWN = {header.GNU_VOLUME_LABEL, header.SOLARIS_ACL}
_PERMISSIONS = 0o7777
_GNU_ATIME, _GNU_CTIME = slice(345, 357), slice(357, 369)


@dataclass(slots=True, kw_only=True)
class Member:
    """One name in an archive, with what its headers say together."""

    at: int  # where its header lies
    path: bytes
    mode: int  # type and permission bits; a hard link's are those of its target
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int | None
    ctime_ns: int | None
    size: int  # bytes, holes included
    data: int  # where its data lies
    link: bytes  # the target of a symlink or hard link
    is_hard_link: bool
    rdev: int
    xattrs: dict[bytes, bytes]
    extents: sparse.Extents | None = None  # of a sparse file


def members(archive: Forward) -> Iterator[Member]:
    """Give all members up to the two zero blocks that end an archive.

    Raises `Damaged` where a header is wrong or the archive ends without them.
    """
    reader = _Reader(archive)
    at = 0
    while True:
        block = archive.read_at(at, BLOCK)
        if block == ZERO_BLOCK:
            if archive.read_at(at + BLOCK, BLOCK) != ZERO_BLOCK:
                raise Damaged(archive.where, at, "one zero block where an archive ends with two")
            return
        try:
            member, next_at = reader.read(at, header.parse(block))
        except BadHeader as error:
            raise Damaged(archive.where, at, str(error)) from None
        if member is not None:
            yield member
        at = next_at


class _Reader:
    """Puts a member together from its own header and the extended ones before it."""

    def __init__(self, archive: Forward) -> None:
        self._archive = archive
        self._shared: pax.Records = {}  # of global headers: they hold for all that follows
        self._forget()

    def _forget(self) -> None:
        self._own: pax.Records = {}
        self._own_size = 0  # bytes of the headers that these come from
        self._sparse: list[bytes] = []
        self._name = self._link = b""

    def read(self, at: int, head: Header) -> tuple[Member | None, int]:
        """Return the member that `head` completes, if it does, and where the next header lies."""
        data = at + BLOCK
        if head.kind in (header.PAX, header.PAX_SOLARIS):
            content = self._content(head, data, EXTENDED_MAX - self._own_size)
            self._own_size += len(content)
            records, self._sparse = pax.parse(content)
            self._own = _merged(self._own, records)
        elif head.kind == header.PAX_GLOBAL:
            self._share(pax.parse(self._content(head, data, SHARED_MAX))[0])
        elif head.kind == header.GNU_LONG_NAME:
            self._name = header.text(self._content(head, data, LONG_NAME_MAX))
        elif head.kind == header.GNU_LONG_LINK:
            self._link = header.text(self._content(head, data, LONG_NAME_MAX))
        elif head.kind not in _NOT_SHOWN:
            found = self._member(at, head)
            self._forget()
            return found
        return None, data + padded(head.size)

    def _share(self, records: pax.Records) -> None:
        self._shared = _merged(self._shared, records)
        if sum(len(key) + len(value) for key, value in self._shared.items()) > SHARED_MAX:
            raise BadHeader(f"global headers of more than {SHARED_MAX} bytes")

    def _content(self, head: Header, data: int, limit: int) -> bytes:
        if head.size > limit:
            raise BadHeader(f"an extended header of {head.size} bytes, more than {limit}")
        return self._archive.read_at(data, head.size)

    def _member(self, at: int, head: Header) -> tuple[Member, int]:
        # An empty value takes a record back: POSIX.1-2017, "pax Extended Header".
        records = {key: value for key, value in (self._shared | self._own).items() if value}
        _refuse_volumes(head, records)
        path = records.get(b"GNU.sparse.name") or records.get(b"path") or self._name or head.name
        stored = pax.size(records[b"size"]) if b"size" in records else head.size
        mode = _mode(head, path)
        member = Member(
            at=at,
            path=path,
            mode=mode,
            uid=_id(records.get(b"uid"), head.uid),
            gid=_id(records.get(b"gid"), head.gid),
            mtime_ns=_time(records.get(b"mtime"), head.mtime) or 0,
            atime_ns=_time(records.get(b"atime"), _gnu_time(head, _GNU_ATIME)),
            ctime_ns=_time(records.get(b"ctime"), _gnu_time(head, _GNU_CTIME)),
            size=stored if stat.S_ISREG(mode) else 0,
            data=at + BLOCK,
            link=records.get(b"linkpath") or self._link or head.link,
            is_hard_link=head.kind == header.HARD_LINK,
            rdev=os.makedev(head.major & 0xFFF, head.minor & 0xF_FFFF),
            xattrs=pax.xattrs(records),
        )
        return member, self._place(head, member, stored, records)

    def _place(self, head: Header, member: Member, stored: int, records: pax.Records) -> int:
        """Say where the member's data lies, and return where the next header does."""
        if member.is_hard_link:
            member.size = 0
            return member.data + padded(self._link_data(member.data, stored))
        if head.kind in _WITHOUT_DATA:
            return member.data
        if head.kind == header.GNU_SPARSE:
            self._place_old_gnu_sparse(head, member, stored)
        elif stat.S_ISREG(member.mode) and any(key.startswith(b"GNU.sparse.") for key in records):
            next_at = member.data + padded(stored)
            self._place_pax_sparse(member, stored, records)
            return next_at
        return member.data + padded(stored)

    def _link_data(self, data: int, stored: int) -> int:
        """Return how much data follows a hard link: pax may store some, old tars only say so."""
        if not stored:
            return 0
        block = self._archive.read_at(data, BLOCK)
        return 0 if block == ZERO_BLOCK or header.is_checked(block) else stored

    def _place_old_gnu_sparse(self, head: Header, member: Member, stored: int) -> None:
        numbers, member.data = sparse.old_gnu_map(self._archive, head.block, member.data)
        member.size = header.real_size(head.block)
        member.extents = sparse.Extents(numbers, member.size, stored)

    def _place_pax_sparse(self, member: Member, stored: int, records: pax.Records) -> None:
        size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        if size is None:
            return  # only a name or a count: not a sparse file
        member.size = pax.size(size)
        if records.get(b"GNU.sparse.major") == b"1":
            stop = member.data + padded(stored)
            numbers, data = sparse.data_map(self._archive, member.data, stop)
            stored -= data - member.data
            member.data = data
        else:
            in_one = records.get(b"GNU.sparse.map")
            numbers = (
                sparse.pax_map(self._sparse) if in_one is None else sparse.pax_map_in_one(in_one)
            )
        member.extents = sparse.Extents(numbers, member.size, stored)


def _merged(records: pax.Records, later: pax.Records) -> pax.Records:
    merged = records | later
    if len(merged) > pax.RECORDS_MAX:
        raise BadHeader(f"more than {pax.RECORDS_MAX} pax records")
    return merged


def _refuse_volumes(head: Header, records: pax.Records) -> None:
    if head.kind == header.GNU_CONTINUATION or b"GNU.volume.offset" in records:
        raise BadHeader("it continues an archive of several volumes; those cannot be shown")


def _mode(head: Header, path: bytes) -> int:
    """Return type and permissions; an unknown type is a regular file, as POSIX asks."""
    kind = _TYPES.get(head.kind, stat.S_IFREG)
    if kind == stat.S_IFREG and head.kind != header.HARD_LINK and path.endswith(b"/"):
        kind = stat.S_IFDIR  # v7 has no other way to say it
    return kind | head.mode & _PERMISSIONS


def _id(value: bytes | None, otherwise: int) -> int:
    return (otherwise if value is None else pax.signed_number(value)) & ID_MASK


def _time(value: bytes | None, otherwise: int | None) -> int | None:
    if value is not None:
        time = pax.time_ns(value)
    elif otherwise is None:
        return None
    else:
        time = otherwise * SECOND_NS
    return max(-TIME_MAX_NS, min(TIME_MAX_NS, time))


def _gnu_time(head: Header, place: slice) -> int | None:
    field = head.block[place]
    return header.number(field) if head.is_gnu and field[0] else None

"""One tar header: 512 bytes, a checksum, numbers in octal or base 256.

      0 name 100        100 mode 8       108 uid 8     116 gid 8     124 size 12    136 mtime 12
    148 checksum 8      156 type 1       157 link name 100           257 magic 6, version 2
    265 user 32         297 group 32     329 major 8   337 minor 8
    345 prefix 155 (ustar, pax; star: 131)
    GNU instead of a prefix:
    345 atime 12        357 ctime 12     369 offset 12               386 four sparse entries of 24
    482 more sparse entries follow 1     483 real size 12

v7 has nothing behind the link name. POSIX.1-2017 "ustar Interchange Format"; GNU tar manual,
"Standard".
"""

import re
from dataclasses import dataclass

BLOCK = 512  # bytes; headers and data are padded to it
SIZE_MAX = 2**63 - 1  # bytes; what SQLite and the kernel can hold
ZERO_BLOCK = bytes(BLOCK)

HARD_LINK, SYMLINK, CHARACTER, DEVICE, DIRECTORY, FIFO = b"1", b"2", b"3", b"4", b"5", b"6"
GNU_DUMPDIR, GNU_LONG_LINK, GNU_LONG_NAME = b"D", b"K", b"L"
GNU_CONTINUATION, GNU_SPARSE, GNU_VOLUME_LABEL = b"M", b"S", b"V"
PAX, PAX_GLOBAL, PAX_SOLARIS = b"x", b"g", b"X"
SOLARIS_ACL = b"A"

SPARSE_ENTRY = 24  # bytes: two numbers of 12
SPARSE_AT, SPARSE_COUNT = 386, 4
IS_EXTENDED_AT = 482

_REAL_SIZE = slice(483, 495)

_CHECKSUM = slice(148, 156)
_SPACES = b" " * 8  # what the checksum field counts as
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*(?:\0.*)?", re.DOTALL)
_BASE_256_POSITIVE, _BASE_256_NEGATIVE = 0x80, 0xFF
_STAR_MARK, _STAR_PREFIX = slice(508, 512), 131


class BadHeader(ValueError):
    """These 512 bytes are no tar header; the message says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What one block says; names are bytes, exactly as they stand there."""

    kind: bytes  # the type flag
    name: bytes
    mode: int
    uid: int
    gid: int
    size: int  # bytes of data that follow
    mtime: int  # seconds since 1970
    link: bytes
    major: int
    minor: int
    is_gnu: bool
    block: bytes


def parse(block: bytes) -> Header:
    """Return the header in `block`; `BadHeader` when the checksum or a number is wrong."""
    if not is_checked(block):
        raise BadHeader("no tar header: its checksum is wrong")
    magic = block[257:265]
    is_gnu = magic == b"ustar  \0"
    kind = block[156:157]
    has_devices = magic[:5] == b"ustar" and kind in (CHARACTER, DEVICE)
    return Header(
        kind=b"0" if kind == b"\0" else kind,
        name=_name(block, has_prefix=magic[:6] == b"ustar\0"),
        mode=number(block[100:108]),
        uid=number(block[108:116]),
        gid=number(block[116:124]),
        size=possible_size(number(block[124:136])),
        mtime=number(block[136:148]),
        link=text(block[157:257]),
        major=number(block[329:337]) if has_devices else 0,
        minor=number(block[337:345]) if has_devices else 0,
        is_gnu=is_gnu,
        block=block,
    )


def is_checked(block: bytes) -> bool:
    """True when `block` is a header whose checksum holds; old tars summed signed bytes."""
    try:
        expected = number(block[_CHECKSUM])
    except BadHeader:
        return False
    summed = sum(block) - sum(block[_CHECKSUM]) + sum(_SPACES)
    if expected == summed:
        return any(block)
    high = sum(byte > 127 for byte in block) - sum(byte > 127 for byte in block[_CHECKSUM])
    return expected == summed - 256 * high


def number(field: bytes) -> int:
    """Return a numeric field: octal, or base 256 where the first byte says so; empty is 0."""
    if field[0] == _BASE_256_POSITIVE:
        return int.from_bytes(field[1:], "big")
    if field[0] == _BASE_256_NEGATIVE:
        return int.from_bytes(field, "big", signed=True)
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise BadHeader(f"not a number: {field!r}")
    return int(match[1] or b"0", 8)


def text(field: bytes) -> bytes:
    """Return a name field up to its NUL, or all of it."""
    return field.partition(b"\0")[0]


def real_size(block: bytes) -> int:
    """Return the size of an old GNU sparse file with its holes."""
    return possible_size(number(block[_REAL_SIZE]))


def possible_size(size: int) -> int:
    """Return `size` if a file can have it, or a position in one be it; `BadHeader`."""
    if not 0 <= size <= SIZE_MAX:
        raise BadHeader(f"a size of {size} bytes")
    return size


def padded(size: int) -> int:
    """Return `size` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def _name(block: bytes, *, has_prefix: bool) -> bytes:
    name = text(block[0:100])
    if not has_prefix:
        return name
    is_star = block[_STAR_MARK] == b"tar\0"
    prefix = text(block[345 : 345 + (_STAR_PREFIX if is_star else 155)])
    return prefix + b"/" + name if prefix else name

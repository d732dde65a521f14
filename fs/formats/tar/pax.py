"""pax extended headers: records `LENGTH KEY=VALUE\\n` that override a header's fields.

Values stay bytes, whatever `hdrcharset` says: a name is shown as the archive has it. POSIX.1-2017
"pax Extended Header"; `SCHILY.*` of star, `LIBARCHIVE.*` of libarchive, `GNU.sparse.*` of GNU tar.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from backgate.fs.formats.tar.acl import acl_to_xattr
from backgate.fs.formats.tar.header import BadHeader, possible_size
from backgate.gateway.units import SECOND_NS

Records = dict[bytes, bytes]
RECORDS_MAX = 20_000  # of one member; the attributes of a file on Linux, which are most, are fewer

_LENGTH = re.compile(rb"([0-9]{1,10}) ")
_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_NANOSECOND_DIGITS = 9
_SCHILY, _LIBARCHIVE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
_SELINUX = b"RHT.security.selinux"
_ACLS = {
    b"SCHILY.acl.access": b"system.posix_acl_access",
    b"SCHILY.acl.default": b"system.posix_acl_default",
}
_REPEATED = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")  # version 0.0: one pair for each extent


def parse(data: bytes) -> tuple[Records, list[bytes]]:
    """Return the records, and the values of the repeated sparse keys in their order.

    Raises `BadHeader` when the records do not fill `data` exactly, or are more than any file needs.
    """
    records: Records = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data) and data[at]:
        key, value, at = _record(data, at)
        if key in _REPEATED:
            sparse.append(value)
        else:
            records[key] = value
            if len(records) > RECORDS_MAX:
                raise BadHeader(f"more than {RECORDS_MAX} pax records")
    return records, sparse


def time_ns(value: bytes) -> int:
    """Return a time, decimal seconds with any fraction, in nanoseconds."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise BadHeader(f"not a time: {value[:40]!r}")
    fraction = (match[3] or b"").ljust(_NANOSECOND_DIGITS, b"0")[:_NANOSECOND_DIGITS]
    time = int(match[2]) * SECOND_NS + int(fraction)
    return -time if match[1] else time


def number(value: bytes) -> int:
    """Return a decimal number that is not negative."""
    if not value.isdigit() or len(value) > 20:  # 2^64 has 20 digits
        raise BadHeader(f"not a number: {value[:40]!r}")
    return int(value)


def size(value: bytes) -> int:
    """Return a size in bytes that a file can have."""
    return possible_size(number(value))


def signed_number(value: bytes) -> int:
    """Return a decimal number; owners have been seen as -1."""
    return -number(value[1:]) if value.startswith(b"-") else number(value)


def xattrs(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the extended attributes that the records carry.

    Left out are ACLs that name users or groups by name only: what number a name had is not there.
    """
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE):
            found.setdefault(unquote_to_bytes(key[len(_LIBARCHIVE) :]), _base64(value))
        elif key.startswith(_SCHILY):
            found[key[len(_SCHILY) :]] = value
        elif key == _SELINUX:
            found[b"security.selinux"] = value
        elif key in _ACLS:
            acl = acl_to_xattr(value)
            if acl is not None:
                found[_ACLS[key]] = acl
    return found


def _record(data: bytes, at: int) -> tuple[bytes, bytes, int]:
    match = _LENGTH.match(data, at)
    if match is None:
        raise BadHeader(f"pax record without a length: {data[at : at + 20]!r}")
    stop = at + int(match[1])
    if stop > len(data) or stop <= match.end() or data[stop - 1 : stop] != b"\n":
        raise BadHeader(f"pax record of a wrong length: {data[at : at + 20]!r}")
    key, equals, value = data[match.end() : stop - 1].partition(b"=")
    if not equals or not key:
        raise BadHeader(f"pax record without a key: {data[at : at + 20]!r}")
    return key, value, stop


def _base64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4))
    except binascii.Error as error:
        raise BadHeader(f"xattr not in base64: {error}") from None

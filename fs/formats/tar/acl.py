"""POSIX ACLs: from the text that tar writes to the bytes of the `system.posix_acl_*` attributes.

linux/posix_acl_xattr.h: version 2 as u32, then entries of tag u16, permissions u16, id u32, all
little-endian.
"""

import struct

VERSION = 2
NO_ID = 0xFFFF_FFFF
ENTRIES_MAX = 1024  # what fits into the kernel's 64 KiB for one attribute, by far

_ENTRY = struct.Struct("<HHI")
_OWN_TAGS = {b"user": 0x01, b"group": 0x04, b"mask": 0x10, b"other": 0x20}
_NAMED_TAGS = {b"user": 0x02, b"group": 0x08}
_BITS = {ord("r"): 4, ord("w"): 2, ord("x"): 1, ord("-"): 0}


def acl_to_xattr(text: bytes) -> bytes | None:
    """Return the attribute's value; None when the text is not understood or names an id by name."""
    lines = [line.split(b"#")[0].strip() for line in text.replace(b"\n", b",").split(b",")]
    entries = [_entry(line) for line in lines if line]
    if not entries or len(entries) > ENTRIES_MAX or None in entries:
        return None
    known = sorted((one for one in entries if one is not None), key=lambda one: (one[0], one[2]))
    return struct.pack("<I", VERSION) + b"".join(_ENTRY.pack(*entry) for entry in known)


def _entry(line: bytes) -> tuple[int, int, int] | None:
    tag, _, rest = line.partition(b":")
    name, _, rest = rest.partition(b":")
    permissions, _, number = rest.partition(b":")  # star appends the number behind the name
    bits = [_BITS.get(letter) for letter in permissions]
    if len(bits) != 3 or None in bits:
        return None
    value = sum(bit for bit in bits if bit is not None)
    if not name:
        return (_OWN_TAGS[tag], value, NO_ID) if tag in _OWN_TAGS else None
    digits = number if number.isdigit() else name
    if tag not in _NAMED_TAGS or not digits.isdigit() or int(digits) >= NO_ID:
        return None
    return _NAMED_TAGS[tag], value, int(digits)

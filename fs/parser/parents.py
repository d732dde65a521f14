"""Whether a parent is the one that an image was laid over.

A VMDK tells by a number that each opening for writing renews. Over a parent that has changed, or
another of the same name, an image would be neither disk. (VHDX is checked by the library; qcow2 has
nothing to check.)
"""

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from fs_explorer.io.source import RandomAccess

from backgate.gateway.errors import Damaged

SPARSE, DESCRIPTOR_AT = b"KDMV", struct.Struct("<28xQQ")  # where a sparse extent has its own
SECTOR, DESCRIPTOR_MAX = 512, 1 << 20  # bytes
NONE = "ffffffff"  # the parent of an image that has none
_NUMBER = re.compile(rb'^\s*(CID|parentCID)\s*=\s*"?([0-9a-f]{1,8})', re.IGNORECASE | re.MULTILINE)


class Numbers(NamedTuple):
    """What an image says of its content, and of its parent's when it was laid over it."""

    own: str
    parent: str


def check_parents(image: RandomAccess, opened: Sequence[RandomAccess]) -> None:
    """Raise `Damaged` unless each VMDK lies over what it was laid over.

    `opened` are the files that reading `image` needed, in order: its parents first.
    """
    below = numbers_of(image)
    for file in opened:
        if below.parent == NONE:
            return
        numbers = numbers_of(file)
        if numbers.own != below.parent:
            reason = "its parent has changed since, or is another"
            raise Damaged("", None, f"{reason}: content {numbers.own}, not {below.parent}")
        below = numbers


def numbers_of(image: RandomAccess) -> Numbers:
    """Return the numbers in the descriptor of a VMDK."""
    start, length = 0, DESCRIPTOR_MAX
    head = image.read_at(0, SECTOR)
    if head.startswith(SPARSE) and len(head) == SECTOR:
        first, count = DESCRIPTOR_AT.unpack_from(head)
        start, length = first * SECTOR, min(count * SECTOR, DESCRIPTOR_MAX)
    text = image.read_at(start, length) if 0 <= start < image.size else b""
    found = {name.lower(): value.decode().lower() for name, value in _NUMBER.findall(text)}
    return Numbers(found.get(b"cid", NONE).zfill(8), found.get(b"parentcid", NONE).zfill(8))

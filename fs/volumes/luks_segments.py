"""What a header of LUKS says, of either version, and the device that it makes of a key."""

from collections.abc import Sequence
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes.devices import Chain, Stretch
from backgate.fs.volumes.luks_keys import Digest, Slot
from backgate.fs.volumes.sector_cipher import Decrypted, decryption
from backgate.gateway.errors import Damaged

DETACHED = "this is only its header: what it encrypts lies on another disk, which nothing tells"


class Segment(NamedTuple):
    """A stretch of the device that is one way encrypted, or not at all."""

    offset: int  # bytes
    size: int | None  # bytes; None: to the end of the device
    sector: int  # bytes
    spec: str  # "aes-xts-plain64"; "" where it is in clear
    first: int  # the number that its first sector is encrypted with


class Header(NamedTuple):
    version: str  # "LUKS1", "LUKS2"
    uuid: str
    label: str
    slots: Sequence[Slot]
    digests: Sequence[Digest]
    segments: Sequence[Segment]


def clear(device: Device, header: Header, key: bytes) -> Device:
    """Return the clear bytes of `device`.

    Raises `Damaged` when its cipher is not supported, or there are none: a detached header.
    """
    keys_end = max((slot.offset + slot.key * slot.stripes for slot in header.slots), default=0)
    parts: list[Device] = []
    for segment in header.segments:
        if segment.offset < keys_end:
            raise Damaged("LUKS", segment.offset, DETACHED)
        size = device.size - segment.offset if segment.size is None else segment.size
        if size < 0 or segment.offset + size > device.size:
            raise Damaged("LUKS", segment.offset, f"it is {size} bytes long there: the disk is cut")
        part: Device = Stretch(device, segment.offset, size)
        if segment.spec:
            decrypt = decryption(segment.spec, key, segment.sector)
            part = Decrypted(part, segment.sector, decrypt, segment.first)
        parts.append(part)
    return parts[0] if len(parts) == 1 else Chain(parts)

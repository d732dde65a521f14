"""The header of LUKS1 (its on-disk format specification, version 1.2.3)."""

import struct

from backgate.fs.volume import Device
from backgate.fs.volumes.luks_keys import Derivation, Digest, Slot, checked
from backgate.fs.volumes.luks_segments import Header, Segment
from backgate.fs.volumes.reading import read_exactly

SECTOR = 512  # bytes
HEADER = struct.Struct(">6sH32s32s32sII20s32sI40s")
SLOT = struct.Struct(">II32sII")
SLOTS = 8
ACTIVE = 0x00AC71F3
DIGEST = 20  # bytes


def header(device: Device) -> Header:
    """Return what the header at the beginning of `device` says; `Damaged` when it is cut short."""
    raw = read_exactly(device, 0, HEADER.size + SLOTS * SLOT.size, "LUKS header")
    _, _, cipher, mode, name, payload, key, digest, salt, iterations, uuid = HEADER.unpack_from(raw)
    hashed, spec = checked(_text(name)), f"{_text(cipher)}-{_text(mode)}"
    slots = []
    for at in range(HEADER.size, len(raw), SLOT.size):
        active, rounds, slot_salt, offset, stripes = SLOT.unpack_from(raw, at)
        if active == ACTIVE:
            derivation = Derivation("pbkdf2", slot_salt, rounds, hashed)
            slots.append(Slot(derivation, offset * SECTOR, key, stripes, hashed, spec, key))
    return Header(
        version="LUKS1",
        uuid=_text(uuid),
        label="",
        slots=slots,
        digests=[Digest(Derivation("pbkdf2", salt, iterations, hashed), digest)],
        segments=[Segment(payload * SECTOR, None, SECTOR, spec, 0)],
    )


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("ascii", "replace")

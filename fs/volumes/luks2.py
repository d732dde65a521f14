"""The header of LUKS2 (its on-disk format specification, version 1.0.0).

Two copies of a binary header each have a JSON text behind them; the newer whole one counts.
"""

import hashlib
import struct
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct

from backgate.fs.volume import Device
from backgate.fs.volumes.luks_keys import Derivation, Digest, Slot, checked
from backgate.fs.volumes.luks_segments import Header, Segment
from backgate.fs.volumes.reading import read_exactly
from backgate.gateway.errors import Damaged

FIRST, SECOND = b"LUKS\xba\xbe", b"SKUL\xba\xbe"
BINARY = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
BINARY_SIZE = 4096  # bytes, most of them zeros
CHECKSUM_AT = 448
SIZES = tuple(0x4000 << power for power in range(9))  # of a copy: 16 KiB to 4 MiB
NEAR = SIZES[:6]  # up to 512 KiB, which lie with everything else that is looked at first
SEGMENTS_MAX = SLOTS_MAX = 32
DYNAMIC = "dynamic"  # the size of a segment that goes to the end of the device


class _Kdf(Struct, frozen=True):
    type: str
    salt: str
    iterations: int = 0
    hash: str = ""
    time: int = 0
    memory: int = 0
    cpus: int = 1


class _Split(Struct, frozen=True):
    type: str
    stripes: int = 0
    hash: str = ""


class _Area(Struct, frozen=True):
    type: str
    offset: str
    encryption: str = ""
    key_size: int = 0


class _Slot(Struct, frozen=True):
    type: str
    key_size: int
    area: _Area
    kdf: _Kdf | None = None
    af: _Split | None = None
    priority: int = 1


class _Segment(Struct, frozen=True):
    type: str
    offset: str
    size: str
    iv_tweak: str = "0"
    encryption: str = ""
    sector_size: int = 512
    integrity: dict[str, object] | None = None


class _Digest(Struct, frozen=True):
    type: str
    keyslots: list[str]
    segments: list[str]
    hash: str
    iterations: int
    salt: str
    digest: str


class _Requirements(Struct, frozen=True):
    mandatory: list[str] = []


class _Config(Struct, frozen=True):
    requirements: _Requirements = _Requirements()


class _Text(Struct, frozen=True):
    keyslots: dict[str, _Slot]
    segments: dict[str, _Segment]
    digests: dict[str, _Digest]
    config: _Config


class _Copy(Struct, frozen=True):
    sequence: int
    label: str
    uuid: str
    text: bytes


def is_second(device: Device) -> bool:
    """True when `device` has the second copy of a header near its beginning, without a first."""
    return any(device.read_at(size, len(SECOND)) == SECOND for size in NEAR)


def header(device: Device) -> Header:
    """Return what the newer whole copy says; `Damaged` when there is none, or it is refused."""
    copy = max(_copies(device), key=lambda copy: copy.sequence)
    try:
        text = msgspec.json.decode(copy.text, type=_Text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged("LUKS header", BINARY_SIZE, str(error)) from error
    return _told(copy, text)


def _copies(device: Device) -> list[_Copy]:
    found, wrong = [], ["there is no copy of it"]
    for at in (0, *SIZES):
        if device.read_at(at, len(FIRST)) == (SECOND if at else FIRST):
            try:
                found.append(_copy(device, at))
            except Damaged as error:
                wrong = [*wrong[1:], str(error)]
    if not found:
        raise Damaged("LUKS header", None, "; ".join(wrong))
    return found


def _copy(device: Device, at: int) -> _Copy:
    raw = read_exactly(device, at, BINARY_SIZE, "LUKS header")
    _, version, size, sequence, label, hashed, _, uuid, _, own, _, checksum = BINARY.unpack_from(
        raw
    )
    if version != 2 or own != at or size not in SIZES:
        raise Damaged("LUKS header", at, f"version {version}, {size} bytes at {own}")
    text = read_exactly(device, at + BINARY_SIZE, size - BINARY_SIZE, "LUKS header")
    end = CHECKSUM_AT + len(checksum)
    zeroed = raw[:CHECKSUM_AT] + bytes(len(checksum)) + raw[end:] + text
    found = hashlib.new(checked(_line(hashed)), zeroed, usedforsecurity=False).digest()
    if found != checksum[: len(found)]:
        raise Damaged("LUKS header", at, "its checksum is wrong")
    return _Copy(sequence, _line(label), _line(uuid), text.split(b"\0")[0])


def _told(copy: _Copy, text: _Text) -> Header:
    if text.config.requirements.mandatory:
        needs = ", ".join(text.config.requirements.mandatory)[:100]
        raise Damaged(
            "LUKS", None, f"it is being encrypted anew, or needs what is unknown: {needs}"
        )
    counts = len(text.segments), len(text.keyslots), len(text.digests)
    if not 0 < counts[0] <= SEGMENTS_MAX or max(counts) > SLOTS_MAX:
        raise Damaged("LUKS", None, "{} segments, {} keys, {} digests".format(*counts))
    digests = [digest for digest in text.digests.values() if digest.segments]
    names = {name for digest in digests for name in digest.keyslots}
    order = sorted(text.keyslots, key=lambda name: -text.keyslots[name].priority)
    return Header(
        version="LUKS2",
        uuid=copy.uuid,
        label=copy.label,
        slots=[slot for name in order if name in names for slot in _slots(text.keyslots[name])],
        digests=[_digest(digest) for digest in digests],
        segments=list(_segments(text.segments)),
    )


def _slots(slot: _Slot) -> Iterator[Slot]:
    """Yield the slot, if it is one that a passphrase opens."""
    if slot.type != "luks2" or slot.kdf is None or slot.af is None or slot.area.type != "raw":
        return
    kdf = slot.kdf
    yield Slot(
        Derivation(
            kind=kdf.type,
            salt=_bytes(kdf.salt),
            iterations=kdf.iterations if kdf.type == "pbkdf2" else kdf.time,
            hash=kdf.hash,
            memory=kdf.memory,
            lanes=kdf.cpus,
        ),
        _number(slot.area.offset),
        slot.key_size,
        slot.af.stripes,
        slot.af.hash,
        slot.area.encryption,
        slot.area.key_size,
    )


def _digest(digest: _Digest) -> Digest:
    if digest.type != "pbkdf2":
        raise Damaged("LUKS", None, f"digests of the type {digest.type!r} are not supported")
    derivation = Derivation("pbkdf2", _bytes(digest.salt), digest.iterations, digest.hash)
    return Digest(derivation, _bytes(digest.digest))


def _segments(found: Mapping[str, _Segment]) -> Iterator[Segment]:
    for segment in sorted(found.values(), key=lambda one: _number(one.offset)):
        if segment.type not in ("crypt", "linear") or segment.integrity is not None:
            what = "with authentication" if segment.integrity else f"of the type {segment.type!r}"
            raise Damaged("LUKS", None, f"encryption {what} is not supported")
        yield Segment(
            _number(segment.offset),
            None if segment.size == DYNAMIC else _number(segment.size),
            segment.sector_size,
            segment.encryption if segment.type == "crypt" else "",
            _number(segment.iv_tweak),
        )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise Damaged("LUKS header", None, f"{text[:30]!r} is not a number")
    return int(text)


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text)
    except (NotBase64, ValueError) as error:
        raise Damaged("LUKS header", None, "a value is not base64") from error


def _line(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")

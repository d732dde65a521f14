"""From a passphrase to the key of a LUKS volume: derivation, and the key split over an area.

What a derivation costs is in the header, which is untrusted: it is bounded.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from cryptography.hazmat.primitives.kdf.argon2 import Argon2i, Argon2id

from backgate.fs.volume import Device
from backgate.fs.volumes.devices import Stretch
from backgate.fs.volumes.key_costs import MEMORY_MAX, Patience, costly
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.sector_cipher import Decrypted, decryption
from backgate.gateway.errors import Damaged

HASHES = ("sha1", "sha256", "sha384", "sha512", "ripemd160")
KEY_MAX = 64  # bytes
STRIPES_MAX = 16_384  # pieces that a key is split into; cryptsetup(8) writes 4000
ITERATIONS_MAX = 50_000_000  # of PBKDF2; a fast machine's choice for two seconds is 10 million
PASSES_MAX = 32 << 20  # KiB that are gone over; about 40 s
LANES_MAX = 64


class Derivation(NamedTuple):
    """How a passphrase becomes a key."""

    kind: str  # "pbkdf2", "argon2i", "argon2id"
    salt: bytes
    iterations: int
    hash: str = ""  # of PBKDF2
    memory: int = 0  # KiB, of Argon2
    lanes: int = 1


class Slot(NamedTuple):
    """One place where the volume's key lies, encrypted with that of a passphrase."""

    derivation: Derivation
    offset: int  # bytes on the device
    key: int  # bytes of the volume's key
    stripes: int
    split_hash: str
    spec: str  # "aes-xts-plain64": how the area is encrypted
    area_key: int  # bytes of the key that it is encrypted with


class Digest(NamedTuple):
    """What a right key is known by."""

    derivation: Derivation
    value: bytes


def opened(
    device: Device,
    slots: Sequence[Slot],
    digests: Sequence[Digest],
    passphrases: Sequence[bytes],
    patience: Patience,
) -> tuple[bytes, int] | None:
    """Return the volume's key, and the number of the passphrase that opened it; None: none did.

    A slot that cannot be tried is passed over; its `Damaged` is raised when no other one opens.
    """
    wrong: Damaged | None = None
    for number, passphrase in enumerate(passphrases):
        for slot in slots:
            try:
                with patience.spent():
                    key = _key(device, slot, passphrase)
                for digest in digests:
                    with patience.spent():
                        if is_key(key, digest):
                            return key, number
            except Damaged as error:
                wrong = error
    if wrong is not None:
        raise wrong
    return None


def is_key(key: bytes, digest: Digest) -> bool:
    """True when `digest` is that of `key`."""
    return derived(key, digest.derivation, len(digest.value)) == digest.value


def derived(secret: bytes, how: Derivation, length: int) -> bytes:
    """Return `length` bytes out of `secret`; `Damaged` when that costs more than is bearable."""
    if not 0 < length <= 512 or how.iterations < 1:
        raise Damaged("LUKS", None, f"a key of {length} bytes by {how.iterations} iterations")
    if how.kind == "pbkdf2":
        if how.iterations > ITERATIONS_MAX:
            raise Damaged("LUKS", None, f"{how.iterations} iterations are too many")
        with costly(0):
            return hashlib.pbkdf2_hmac(checked(how.hash), secret, how.salt, how.iterations, length)
    if how.kind not in ("argon2i", "argon2id"):
        raise Damaged("LUKS", None, f"keys by {how.kind!r} are not supported")
    return _argon2(secret, how, length)


def checked(name: str) -> str:
    """Return `name` when it is a hash that LUKS uses and this machine has; else `Damaged`."""
    with suppress(ValueError):  # a machine may have been told to refuse old ones
        if name in HASHES:
            return hashlib.new(name, usedforsecurity=False).name
    raise Damaged("LUKS", None, f"the hash {name!r} is not supported")


def _argon2(secret: bytes, how: Derivation, length: int) -> bytes:
    if how.memory << 10 > MEMORY_MAX or how.memory * how.iterations > PASSES_MAX:
        cost = f"{how.memory >> 10} MiB {how.iterations} times"
        raise Damaged("LUKS", None, f"a passphrase costs more than is allowed here: {cost}")
    if not 1 <= how.lanes <= LANES_MAX or how.memory < 8 * how.lanes or len(how.salt) < 8:
        raise Damaged("LUKS", None, f"{how.lanes} lanes of {how.memory} KiB")
    kind = Argon2id if how.kind == "argon2id" else Argon2i
    with costly(how.memory << 10):
        return kind(
            salt=how.salt,
            length=length,
            iterations=how.iterations,
            lanes=how.lanes,
            memory_cost=how.memory,
        ).derive(secret)


def _key(device: Device, slot: Slot, passphrase: bytes) -> bytes:
    if not (0 < slot.key <= KEY_MAX and 0 < slot.stripes <= STRIPES_MAX):
        raise Damaged("LUKS", slot.offset, f"a key of {slot.key} bytes in {slot.stripes} stripes")
    area_key = derived(passphrase, slot.derivation, slot.area_key)
    size = slot.key * slot.stripes
    whole = -(-size // 512) * 512
    read_exactly(device, slot.offset, whole, "LUKS key")
    area = Stretch(device, slot.offset, whole)
    split = Decrypted(area, 512, decryption(slot.spec, area_key, 512), 0).read_at(0, size)
    return _merged(split, slot)


def _merged(split: bytes, slot: Slot) -> bytes:
    """Undo the anti-forensic splitter: every stripe must be there, or nothing is."""
    mixed = bytes(slot.key)
    for at in range(0, len(split), slot.key):
        stripe = split[at : at + slot.key]
        mixed = bytes(one ^ two for one, two in zip(mixed, stripe, strict=True))
        if at + slot.key < len(split):
            mixed = _diffused(mixed, checked(slot.split_hash))
    return mixed


def _diffused(block: bytes, name: str) -> bytes:
    size = hashlib.new(name, usedforsecurity=False).digest_size
    pieces = []
    for number, at in enumerate(range(0, len(block), size)):
        piece = block[at : at + size]
        mixed = hashlib.new(name, number.to_bytes(4) + piece, usedforsecurity=False)
        pieces.append(mixed.digest()[: len(piece)])
    return b"".join(pieces)

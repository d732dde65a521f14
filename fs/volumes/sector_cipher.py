"""Disk encryption by sectors, as dm-crypt does it, decrypted many sectors at a time."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from backgate.fs.volume import ENCODED, Device, Extent
from backgate.gateway.errors import Damaged

UNIT = 512  # bytes; sectors are numbered in these, however large they are
BLOCK = 16  # bytes of one block of AES
SECTOR_SIZES = (512, 1024, 2048, 4096)  # bytes
XTS_KEYS, CBC_KEYS = (32, 64), (16, 24, 32)  # bytes; XTS takes two

# Decrypts whole sectors, of which the first has this number.
Decrypt: TypeAlias = Callable[[bytes, int], bytes]


class Decrypted:
    """The clear bytes of a stretch of `device`; where it ends, they end with its last sector."""

    def __init__(self, device: Device, sector: int, decrypt: Decrypt, first: int) -> None:
        """Let `first` be the number that the first sector of `device` is encrypted with."""
        if sector not in SECTOR_SIZES:
            raise Damaged("encrypted volume", None, f"sectors of {sector} bytes")
        self._device, self._sector, self._decrypt, self._first = device, sector, decrypt, first
        self.size = device.size // sector * sector

    def read_at(self, offset: int, length: int) -> bytes:
        stop = min(offset + length, self.size)
        if offset >= stop:
            return b""
        start = offset // self._sector * self._sector
        data = self._device.read_at(start, -(-stop // self._sector) * self._sector - start)
        if len(data) % self._sector:
            raise Damaged(
                "encrypted volume", start + len(data), "it ends in the middle of a sector"
            )
        clear = self._decrypt(data, self._first + start // UNIT)
        return clear[offset - start : stop - start]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield Extent(length, ENCODED, 0)


def decryption(spec: str, key: bytes, sector: int) -> Decrypt:
    """Return what decrypts `sector` bytes each by `spec`, as "aes-xts-plain64".

    Raises `Damaged` when the cipher is not supported, or the key is not one of its keys.
    """
    cipher, _, rest = spec.partition("-")
    mode, _, numbering = rest.partition("-")
    if cipher != "aes" or mode not in ("xts", "cbc"):
        raise Damaged("encrypted volume", None, f"the cipher {spec!r} is not supported")
    if len(key) not in (XTS_KEYS if mode == "xts" else CBC_KEYS):
        raise Damaged("encrypted volume", None, f"a key of {len(key)} bytes for {spec!r}")
    vectors = _vectors(numbering, key, spec)
    if mode == "xts":
        return _xts(key, sector, vectors)
    return _cbc(key, sector, vectors)


# Returns the initialisation vectors of `count` sectors, one after another.
_Vectors: TypeAlias = Callable[[range], bytes]


def _vectors(numbering: str, key: bytes, spec: str) -> _Vectors:
    if numbering == "plain64":
        return lambda numbers: b"".join([n.to_bytes(BLOCK, "little") for n in numbers])
    if numbering == "plain64be":
        return lambda numbers: b"".join([n.to_bytes(BLOCK, "big") for n in numbers])
    if numbering == "plain":
        return lambda numbers: b"".join(
            [(n & 0xFFFF_FFFF).to_bytes(BLOCK, "little") for n in numbers]
        )
    kind, _, name = numbering.partition(":")
    if kind == "essiv" and name in ("sha1", "sha256", "sha512", "md5"):
        salt = hashlib.new(name, key, usedforsecurity=False).digest()
        if len(salt) in CBC_KEYS:
            plain = _vectors("plain64", key, spec)
            encrypting = Cipher(algorithms.AES(salt), modes.ECB())
            return lambda numbers: encrypting.encryptor().update(plain(numbers))
    raise Damaged("encrypted volume", None, f"the cipher {spec!r} is not supported")


def _xts(key: bytes, sector: int, vectors: _Vectors) -> Decrypt:
    algorithm = algorithms.AES(key)
    step = sector // UNIT

    def decrypt(data: bytes, first: int) -> bytes:
        count = len(data) // sector
        tweaks = vectors(range(first, first + count * step, step))
        view = memoryview(data)
        return b"".join(
            [
                Cipher(algorithm, modes.XTS(tweaks[at * BLOCK : (at + 1) * BLOCK]))
                .decryptor()
                .update(view[at * sector : (at + 1) * sector])
                for at in range(count)
            ]
        )

    return decrypt


def _cbc(key: bytes, sector: int, vectors: _Vectors) -> Decrypt:
    cipher = Cipher(algorithms.AES(key), modes.ECB())
    step = sector // UNIT

    def decrypt(data: bytes, first: int) -> bytes:
        """Decrypt all blocks at once, then add to each the encrypted one before it."""
        count = len(data) // sector
        starts = vectors(range(first, first + count * step, step))
        before = bytearray(BLOCK) + data[:-BLOCK]
        for at in range(count):
            before[at * sector : at * sector + BLOCK] = starts[at * BLOCK : (at + 1) * BLOCK]
        clear = cipher.decryptor().update(data)
        mixed = int.from_bytes(clear, "little") ^ int.from_bytes(before, "little")
        return mixed.to_bytes(len(data), "little")

    return decrypt

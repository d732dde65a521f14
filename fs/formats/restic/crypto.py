"""The envelope around everything that restic encrypts: `IV || ciphertext || MAC`.

AES-256 in counter mode, authenticated with Poly1305-AES over the ciphertext. The MAC is verified
before a byte is decrypted. OpenSSL does the work without the interpreter's lock, so threads scale.
"""

import threading
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from cryptography.hazmat.primitives.poly1305 import Poly1305

from backgate.gateway.source import Data

IV = 16  # bytes
MAC = 16  # bytes
BLOCK = 16  # bytes: of AES
OVERHEAD = IV + MAC  # bytes that an envelope is longer than what it holds
AES_KEY = 32  # bytes
MAC_KEY = 16  # bytes; of both k and r


class Unsound(ValueError):
    """Bytes that are not what they claim to be; the caller knows where they lie and says so."""


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A key of a repository: of the password, or the master key that all else is sealed with."""

    encryption: bytes  # 32 bytes
    mac_k: bytes  # 16 bytes
    mac_r: bytes  # 16 bytes; OpenSSL clamps it itself

    def __post_init__(self) -> None:
        if (len(self.encryption), len(self.mac_k), len(self.mac_r)) != (AES_KEY, MAC_KEY, MAC_KEY):
            raise Unsound("a key of the wrong length")

    @classmethod
    def of(cls, material: bytes) -> "Key":
        """Return the key that the 64 bytes which scrypt made of a password stand for."""
        return cls(
            material[:AES_KEY],
            material[AES_KEY : AES_KEY + MAC_KEY],
            material[AES_KEY + MAC_KEY :],
        )


class Opener:
    """Opens envelopes sealed with one key, in any number of threads at once."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._local = threading.local()  # a cipher context belongs to one thread

    def __eq__(self, other: object) -> bool:
        """True when both open the same envelopes."""
        return isinstance(other, Opener) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def open(self, sealed: Data) -> memoryview:
        """Return what the envelope holds; `Unsound` when it was not sealed with this key."""
        if len(sealed) < OVERHEAD:
            raise Unsound(f"{len(sealed)} bytes are too few for an envelope")
        view = memoryview(sealed)
        iv, body, mac = bytes(view[:IV]), view[IV:-MAC], bytes(view[-MAC:])
        if not any(iv):
            raise Unsound("an initialisation vector of zeros")
        try:
            Poly1305.verify_tag(self._key.mac_r + self._nonce_cipher().update(iv), body, mac)
        except InvalidSignature:
            raise Unsound("the MAC does not match") from None
        # `update` would copy what it makes once more: a quarter of the speed.
        plain = bytearray(len(body) + BLOCK - 1)
        Cipher(AES(self._key.encryption), CTR(iv)).decryptor().update_into(body, plain)
        return memoryview(plain)[: len(body)].toreadonly()

    def _nonce_cipher(self) -> CipherContext:
        cipher: CipherContext | None = getattr(self._local, "cipher", None)
        if cipher is None:
            # One block per envelope under a key of its own: this is how Poly1305-AES is defined.
            cipher = Cipher(AES(self._key.mac_k), ECB()).encryptor()
            self._local.cipher = cipher
        return cipher

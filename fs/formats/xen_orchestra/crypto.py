"""The envelope around everything in an encrypted repository: `IV || ciphertext || tag`.

ChaCha20-Poly1305 or AES-256-GCM, one message for a whole object, no additional data; the key is
the text of 32 characters itself. A large object can be read in ranges once its tag was verified:
both ciphers are a key stream with a counter.
"""

import struct
from typing import Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM
from cryptography.hazmat.primitives.poly1305 import Poly1305

from backgate.gateway.source import Data
from backgate.gateway.units import GIB

KEY = 32  # bytes
IV = 12  # bytes
TAG = 16  # bytes
OVERHEAD = IV + TAG  # bytes that an envelope is longer than what it holds
CHACHA20, AES_GCM = "chacha20-poly1305", "aes-256-gcm"
ALGORITHMS = (CHACHA20, AES_GCM)
AES_BLOCK = 16  # bytes
STREAM_BLOCK = 64  # bytes: where the key stream of either cipher can be entered
MESSAGE_MAX = {CHACHA20: 256 * GIB, AES_GCM: 64 * GIB}  # bytes, where their counters end
NO_TAG = "it is not authentic: damaged, or encrypted with another key"
_LENGTHS = struct.Struct("<QQ")


class NotAuthentic(ValueError):
    """Bytes that this key has not sealed; the caller knows where they lie."""


class Stream(Protocol):
    """Decrypts one message piece by piece, in order."""

    def update(self, sealed: Data, /) -> bytes:
        """Return the plain bytes of the next piece; nothing is sure before `verify`."""

    def verify(self, tag: bytes) -> None:
        """Raise `NotAuthentic` unless all that was taken is what was sealed."""


class Opener:
    """Opens what one key has sealed with one algorithm; in any number of threads at once."""

    def __init__(self, algorithm: str, key: bytes) -> None:
        self.algorithm, self._key = algorithm, key
        self._aead = ChaCha20Poly1305(key) if algorithm == CHACHA20 else AESGCM(key)

    def open(self, sealed: Data) -> bytes:
        """Return what the envelope holds; `NotAuthentic`."""
        if len(sealed) < OVERHEAD:
            raise NotAuthentic(f"{len(sealed)} bytes are too few for an encrypted object")
        view = memoryview(sealed)
        try:
            return self._aead.decrypt(bytes(view[:IV]), view[IV:], None)
        except InvalidTag:
            raise NotAuthentic(NO_TAG) from None

    def stream(self, iv: bytes) -> Stream:
        """Return what decrypts and verifies a message of any length."""
        if self.algorithm == CHACHA20:
            return _ChaCha20(self._key, iv)
        return _Gcm(self._key, iv)

    def decrypted(self, iv: bytes, offset: int, data: Data) -> bytes:
        """Return plain bytes of a message from `offset` on, a multiple of STREAM_BLOCK.

        Nothing is verified here.
        """
        block = offset // STREAM_BLOCK
        if self.algorithm == CHACHA20:  # block 0 of the stream is the authenticator's key
            nonce = (block + 1).to_bytes(4, "little") + iv
            return Cipher(ChaCha20(self._key, nonce), None).decryptor().update(data)
        counter = 2 + offset // AES_BLOCK  # 1 is the tag's
        nonce = iv + counter.to_bytes(4, "big")
        return Cipher(AES(self._key), CTR(nonce)).decryptor().update(data)


class _ChaCha20:
    """RFC 8439, 2.8, without additional data."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._cipher = Cipher(ChaCha20(key, bytes(4) + iv), None).decryptor()
        one_time = self._cipher.update(bytes(STREAM_BLOCK))[:KEY]
        self._mac, self._length = Poly1305(one_time), 0

    def update(self, sealed: Data, /) -> bytes:
        self._mac.update(sealed)
        self._length += len(sealed)
        return self._cipher.update(sealed)

    def verify(self, tag: bytes) -> None:
        self._mac.update(bytes(-self._length % 16) + _LENGTHS.pack(0, self._length))
        try:
            self._mac.verify(tag)
        except InvalidSignature:
            raise NotAuthentic(NO_TAG) from None


class _Gcm:
    def __init__(self, key: bytes, iv: bytes) -> None:
        self._cipher = Cipher(AES(key), GCM(iv)).decryptor()

    def update(self, sealed: Data, /) -> bytes:
        return self._cipher.update(sealed)

    def verify(self, tag: bytes) -> None:
        try:
            self._cipher.finalize_with_tag(tag)
        except InvalidTag:
            raise NotAuthentic(NO_TAG) from None

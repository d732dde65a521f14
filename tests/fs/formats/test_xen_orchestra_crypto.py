"""The envelope of encrypted repositories: whole, in a stream, and in ranges."""

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from backgate.fs.formats.xen_orchestra.crypto import (
    AES_GCM,
    CHACHA20,
    IV,
    STREAM_BLOCK,
    TAG,
    NotAuthentic,
    Opener,
)

KEY = bytes(range(32))
PLAIN = os.urandom(10_000)
CIPHERS = {CHACHA20: ChaCha20Poly1305, AES_GCM: AESGCM}


def sealed(algorithm: str, plain: bytes = PLAIN) -> bytes:
    iv = os.urandom(IV)
    return iv + CIPHERS[algorithm](KEY).encrypt(iv, plain, None)


@pytest.mark.parametrize("algorithm", CIPHERS)
def test_an_envelope_opens_with_its_key_alone(algorithm: str) -> None:
    data = sealed(algorithm)

    assert Opener(algorithm, KEY).open(memoryview(data)) == PLAIN
    for bad in (data[:-1], data[:20], b"", data[:-1] + bytes([data[-1] ^ 1])):
        with pytest.raises(NotAuthentic):
            Opener(algorithm, KEY).open(bad)
    with pytest.raises(NotAuthentic):
        Opener(algorithm, bytes(32)).open(data)


@pytest.mark.parametrize("algorithm", CIPHERS)
def test_a_stream_gives_the_plain_bytes_and_verifies_them(algorithm: str) -> None:
    data = sealed(algorithm)
    body, tag = data[IV:-TAG], data[-TAG:]
    for step in (1, 63, 64, 4096, 20_000):
        stream = Opener(algorithm, KEY).stream(data[:IV])
        pieces = [stream.update(body[at : at + step]) for at in range(0, len(body), step)]

        assert b"".join(pieces) == PLAIN
        stream.verify(tag)

    stream = Opener(algorithm, KEY).stream(data[:IV])
    stream.update(body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(NotAuthentic):
        stream.verify(tag)


@pytest.mark.parametrize("algorithm", CIPHERS)
def test_a_range_from_any_block_of_the_key_stream_is_the_slice(algorithm: str) -> None:
    data = sealed(algorithm)
    opener = Opener(algorithm, KEY)
    for offset in range(0, len(PLAIN), 7 * STREAM_BLOCK):
        piece = data[IV + offset : IV + offset + 500][: len(PLAIN) - offset]

        assert opener.decrypted(data[:IV], offset, piece) == PLAIN[offset : offset + 500]

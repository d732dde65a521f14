"""CRC-32C, which the file systems of Linux share, and the one of old ext4 journals."""

from zlib import crc32

from google_crc32c import extend

CRC32C_BYTES = 4
_ALL_ONES = 0xFFFF_FFFF
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc32c(data: bytes, crc: int = 0) -> int:
    """Return the CRC-32C of `data`, or of what `crc` is the checksum of and then `data`."""
    return int(extend(crc, data))


def crc32c_around(data: bytes, at: int) -> int:
    """Return the CRC-32C of `data` with the checksum in it, at `at`, taken as zeros."""
    before = extend(0, data[:at])
    return int(extend(extend(before, bytes(CRC32C_BYTES)), data[at + CRC32C_BYTES :]))


def plain_crc32c(data: bytes, crc: int = _ALL_ONES) -> int:
    """Return the same without the inversion at the end, as ext4 and jbd2 keep it."""
    return int(extend(crc ^ _ALL_ONES, data)) ^ _ALL_ONES


def big_endian_crc32(data: bytes, crc: int = _ALL_ONES) -> int:
    """Return the CRC-32 that takes the highest bit of a byte first, without inversions."""
    mirrored = crc32(data.translate(_MIRRORED), _mirrored(crc) ^ _ALL_ONES) ^ _ALL_ONES
    return _mirrored(mirrored)


def _mirrored(word: int) -> int:
    return int.from_bytes(word.to_bytes(4, "little").translate(_MIRRORED), "big")

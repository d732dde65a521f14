"""The files that are no packs: config, keys, snapshots, index. Read whole, checked, decoded.

Version 1 seals JSON; version 2 may compress it: then the first byte says so. A migrated repository
has both.
"""

import hashlib

import trio

from backgate.fs.format import Objects
from backgate.fs.formats.restic.compression import decompress_unknown
from backgate.fs.formats.restic.crypto import Opener, Unsound
from backgate.fs.whole import read_whole
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import KIB, MIB

KEY_FILE_MAX = 64 * KIB  # bytes
UNPACKED_MAX = 64 * MIB  # bytes, sealed or plain; an index file has 8 MiB at most
COMPRESSED = b"\x02"  # first byte of plaintext that goes on as one zstd frame
JSON_STARTS = (b"{", b"[")


async def read_sealed(
    objects: Objects, info: ObjectInfo, opener: Opener, workers: trio.CapacityLimiter
) -> bytes:
    """Return the JSON in a snapshot or index file; `Damaged` when anything does not hold."""
    data = bytes(await read_whole(objects, info, UNPACKED_MAX))
    return await trio.to_thread.run_sync(_checked, info, data, opener, limiter=workers)


def check_id(info: ObjectInfo, data: bytes) -> None:
    """Raise `Damaged` unless the object is still what its name says, a sha256."""
    if hashlib.sha256(data).hexdigest() != info.key.rpartition("/")[2]:
        raise Damaged(info.key, None, "its content is not what its name says (sha256)")


def unsealed(sealed: bytes, opener: Opener) -> bytes:
    """Return the JSON in an envelope, compressed or not."""
    plain = opener.open(sealed)
    first = bytes(plain[:1])
    if first == COMPRESSED:
        return decompress_unknown(plain[1:], UNPACKED_MAX)
    if first not in JSON_STARTS:
        raise Unsound(f"an unknown encoding: {first!r}")
    return bytes(plain)


def _checked(info: ObjectInfo, data: bytes, opener: Opener) -> bytes:
    check_id(info, data)
    try:
        return unsealed(data, opener)
    except Unsound as error:
        raise Damaged(info.key, None, str(error)) from None

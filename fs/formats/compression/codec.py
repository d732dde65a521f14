"""What the four compressions have in common, and which of them an object begins with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from backgate.fs.formats.compression.packed import PackedFile

UNIT_MIN = 1 << 20  # plain bytes between two restarts; a shorter unit is merged with the next
CHUNK = 1 << 20  # plain bytes that a codec gives at a time, at most
HEAD = 6  # bytes that tell the compression


@dataclass(frozen=True, slots=True)
class Restart:
    """Decompression can start at this plain position: at byte `packed`, with `state`."""

    packed: int
    state: bytes
    memory: int = 1 << 20  # bytes that decompression from here keeps, about


# Gives the plain bytes from the file's position on, and, before the bytes they stand for, restarts.
# With the state of a restart it goes on from there. Raises `Damaged` where the bytes do not hold
# together.
Unpack = Callable[[PackedFile, bytes | None], Iterator[Restart | bytes]]


@dataclass(frozen=True, slots=True)
class Codec:
    """One compression."""

    name: str
    magic: bytes
    is_copied: (
        bool  # a stretch without restart may be of any length, so the pieces of it are copied
    )

    def unpack(self, file: PackedFile, state: bytes | None = None) -> Iterator[Restart | bytes]:
        """See `Unpack`; the module is only imported now."""
        module = import_module(f"backgate.fs.formats.compression.{self.name}")
        unpack: Unpack = module.unpack
        return unpack(file, state)


CODECS = (
    Codec("gzip", b"\x1f\x8b\x08", is_copied=False),
    Codec("bzip2", b"BZh", is_copied=False),
    Codec("xz", b"\xfd7zXZ\0", is_copied=True),
    Codec("zstd", b"\x28\xb5\x2f\xfd", is_copied=True),
)
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # behind a byte of 0x50 to 0x5f: pzstd begins with such a frame


def codec_of(head: bytes) -> Codec | None:
    """Return the compression of an object that begins with `head`; None when it is none of ours."""
    for codec in CODECS:
        if head.startswith(codec.magic):
            return codec
    if head[1:4] == _ZSTD_SKIPPABLE and head[0] & 0xF0 == 0x50:
        return codec_named("zstd")
    return None


def codec_named(name: str) -> Codec:
    """Return the compression of that name."""
    return next(codec for codec in CODECS if codec.name == name)

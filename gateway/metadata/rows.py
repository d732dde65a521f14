"""What the index knows of one name, and how it lies in a row."""

import stat

import msgspec
from msgspec import Struct

from backgate.gateway.attributes import Attributes
from backgate.gateway.metadata.database import Corrupt
from backgate.gateway.metadata.spans import decoded
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import SECOND_NS

OBJECT = "key, size, mtime_ns, etag, attributes"  # the columns that `known` takes
NO_ATTRIBUTES = b""  # the object's metadata was read and tells none; NULL: never read

ObjectRow = tuple[bytes, int, int, str, bytes | None, *tuple[object, ...]]

REQUIRED = 4  # attributes without a default; what comes behind them is left out where it can be
_NAMES = Attributes.__struct_fields__  # a new one goes to the end
_MODE = _NAMES.index("mode")
_decoder = msgspec.msgpack.Decoder(list[int | str | None])


class Known(Struct):
    """An object as the index has it."""

    info: ObjectInfo
    attributes: Attributes | None  # None: it has none, or nobody has read its metadata yet
    is_settled: bool = False  # its metadata was read: `attributes` is the whole truth


class Subdirectory(Struct):
    """A directory: a marker object, or just the beginning of other keys."""

    prefix: str  # ends in "/"
    attributes: Attributes | None  # as set through this gateway, or kept with the marker


def known(row: ObjectRow) -> Known:
    """Return the object that `row` (of the columns `OBJECT`) describes."""
    info = ObjectInfo(decoded(row[0]), row[1], row[2], row[3])
    return Known(info, None) if row[4] is None else Known(info, unpacked(row[4]), True)


def is_same_version(info: ObjectInfo, etag: str, mtime_ns: int, listed: int, size: int) -> bool:
    """True when the row of those columns is about the version `info`.

    An etag may be that of the contents alone, so times count too: to the second, which is all that
    HEAD tells, and not before the store itself has told the time.
    """
    if info.etag != etag or info.size != size:
        return False
    return not listed or abs(info.mtime_ns - mtime_ns) < SECOND_NS


def packed(attributes: Attributes | None) -> bytes:
    """Return attributes as the index stores them; about 30 bytes."""
    if attributes is None:
        return NO_ATTRIBUTES
    values = [getattr(attributes, name) for name in _NAMES]
    while len(values) > REQUIRED and values[-1] in (0, "", None):  # what it defaults to
        del values[-1]
    return msgspec.msgpack.encode(values)


def is_file(data: bytes | None) -> bool:
    """True when nothing in packed attributes says that they are of anything but a regular file."""
    if not data:
        return True
    try:
        mode = _decoder.decode(data)[_MODE]
    except (msgspec.DecodeError, IndexError) as error:
        raise Corrupt(f"not attributes: {error}") from error
    return isinstance(mode, int) and stat.S_ISREG(mode)


def unpacked(data: bytes | None) -> Attributes | None:
    """Return what `packed` was given; what it cannot have given means a damaged index."""
    if not data:
        return None
    try:
        return Attributes(**dict(zip(_NAMES, _decoder.decode(data), strict=False)))  # type: ignore[arg-type]
    except (msgspec.DecodeError, TypeError) as error:
        raise Corrupt(f"not attributes: {error}") from error

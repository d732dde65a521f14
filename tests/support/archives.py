"""Archives for tests: made by GNU tar or member by member, and opened as the gateway opens them."""

import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from contracts.format_contract import surroundings
from support.objects import FolderObjects

from backgate.fs.format import Backup
from backgate.fs.formats.indexes import identity
from backgate.fs.formats.tar.format import TarFormat
from backgate.fs.tree import Tree

END = bytes(1024)  # two zero blocks


def member(
    name: str, data: bytes = b"", *, format_: int = tarfile.GNU_FORMAT, **fields: object
) -> bytes:
    """Return one member: its headers and its data in whole blocks."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(format_, "utf-8", "surrogateescape") + in_blocks(data)


def in_blocks(data: bytes) -> bytes:
    """Return `data` filled up with zeros to whole blocks."""
    return data + bytes(-len(data) % 512)


def small_archive(format_: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive with a few members of every common kind."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format_) as archive:
        for name, size in (("a", 0), ("b", 1), ("dir/c", 511), ("dir/d", 512), ("ü" * 60, 1300)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = size, 1_600_000_000
            archive.addfile(info, io.BytesIO(name.encode()[:1] * size))
        for kind, name, target in (
            (tarfile.SYMTYPE, "symlink", "b"),
            (tarfile.LNKTYPE, "hard link", "dir/d"),
            (tarfile.DIRTYPE, "empty", ""),
            (tarfile.FIFOTYPE, "fifo", ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return in_blocks(made.getvalue().rstrip(b"\0")) + END


@asynccontextmanager
async def opened(
    store: Path, cache: Path, key: str = "a.tar"
) -> AsyncIterator[tuple[Tree, FolderObjects]]:
    """Open the archive `key` of `store`; gives the tree, and the objects with their reads."""
    async with surroundings(store, cache) as lent:
        assert isinstance(lent.objects, FolderObjects)
        info = await lent.objects.info(key)
        version = identity(info)
        backup = Backup(path=(key,), key=key, time_ns=info.mtime_ns, version=version)
        async with TarFormat(lent).open(backup) as tree:
            yield tree, lent.objects

"""File systems that the fs-explorer library reads, behind our contract.

The library parses; here are its errors turned into ours, its nodes into ours, each name once and
as the bytes that lie on the disk, and a cache of decoded directories. What a file's bytes are made
of is told as extents wherever they lie on a disk as they are.
"""

import errno
import struct
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar

import msgspec
from cachetools import LRUCache
from fs_explorer.entry import EntryType
from fs_explorer.errors import FsExplorerError
from fs_explorer.io.blockmap import ExtentRA
from fs_explorer.io.cache import Cache
from fs_explorer.io.parallel import Pool
from fs_explorer.io.source import RandomAccess
from fs_explorer.io.stats import Stats
from fs_explorer.tree import Context, ProbeHint
from fs_explorer.tree import Node as Parsed

from backgate.fs.volume import (
    ENCODED,
    HANDLE_MAX,
    HOLE,
    XATTR_MAX,
    Device,
    Extent,
    FileSystem,
    Node,
    Nodes,
)
from backgate.fs.volumes import load
from backgate.fs.volumes.codecs import provide_zstd
from backgate.gateway.errors import Damaged, FileError

LIBRARY_CACHE = 16 << 20  # bytes that the library may keep of inodes and decoded blocks
HEAD = 64 << 10  # bytes that a driver of the library is given to begin with
PAGE = 500  # nodes in one page of a directory
CACHED_MAX = 20_000  # nodes of a directory that is kept decoded; a larger one is streamed
KEPT = 50_000  # nodes of all decoded directories together; some 35 MiB
LOOKUPS = 10  # in one directory, after which it is worth decoding
DIRECTORIES = 10_000  # whose lookups are counted
OPEN_FILES = 256  # files whose map is kept

# What a parser stumbles over; memory that runs out is the worker's own affair.
STUMBLES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

_TYPES = {
    EntryType.FILE: 0o100000,
    EntryType.DIR: 0o040000,
    EntryType.SYMLINK: 0o120000,
    EntryType.CHAR_DEVICE: 0o020000,
    EntryType.BLOCK_DEVICE: 0o060000,
    EntryType.FIFO: 0o010000,
    EntryType.SOCKET: 0o140000,
}
_KINDS = {value: kind for kind, value in _TYPES.items()}


class Access(RandomAccess):
    """A device of ours as the library takes one; a "descriptor" of it is the number of a disk."""

    def __init__(self, device: Device) -> None:
        self._device, self.size = device, device.size

    def read_at(self, offset: int, length: int) -> bytes:
        return self._device.read_at(offset, length) if offset >= 0 and length > 0 else b""

    def physical_ranges(self, offset: int, length: int) -> list[tuple[int | None, int, int]]:
        return [
            (None if disk == HOLE else disk, at, size)
            for size, disk, at in self._device.extents(offset, length)
        ]


@contextmanager
def translated() -> Iterator[None]:
    """Raise `Damaged` for whatever the library raises."""
    try:
        yield
    except FsExplorerError as error:
        raise Damaged("", None, str(error)) from error
    except STUMBLES as error:
        raise Damaged("", None, f"{type(error).__name__}: {error}") from error


def context() -> Context:
    """Return what the library shares among its parts; it starts no threads."""
    provide_zstd()
    return Context(cache=Cache(LIBRARY_CACHE), stats=Stats(), pool=Pool(1))


def device_number(major_minor: tuple[int, int] | None) -> int:
    """Return st_rdev."""
    if major_minor is None:
        return 0
    major, minor = major_minor
    high = (major & ~0xFFF) << 32 | (minor & ~0xFF) << 12
    return (high | (major & 0xFFF) << 8 | minor & 0xFF) & 2**64 - 1


def _hint(access: Access) -> ProbeHint:
    return ProbeHint(access, access.read_at(0, HEAD), b"", access.size)


class Explored(FileSystem):
    """A file system that a driver of the library reads.

    Subclasses say how a node is found again (`ref_fields`, `ref_of`), and what is special.
    """

    driver: ClassVar[str]  # "module:Class"
    undecodable: ClassVar[str] = "surrogateescape"  # how bytes that are no UTF-8 come as text
    sure: ClassVar[int]  # of 100: how sure the driver must be that it is one

    @classmethod
    def claims(cls, device: Device) -> bool:
        access = Access(device)
        try:
            probed: int = load(cls.driver).probe(_hint(access))
        except (FsExplorerError, *STUMBLES):
            return False
        return probed >= cls.sure

    def __init__(self, device: Device) -> None:
        self._access = Access(device)
        with translated():
            self._tree: Any = self._opened()
        self._decoded: LRUCache[bytes, dict[bytes, Node]] = LRUCache(KEPT, getsizeof=_weight)
        self._lookups: LRUCache[bytes, int] = LRUCache(DIRECTORIES)
        self._files: LRUCache[bytes, RandomAccess] = LRUCache(OPEN_FILES)
        self._stream: tuple[bytes, int, Iterator[Node]] | None = None
        with translated():
            self.notes: Mapping[str, str] = self._known()

    def _opened(self) -> Any:
        """Return the library's tree."""
        return load(self.driver).open(self._access, context(), _hint(self._access))

    def _known(self) -> dict[str, str]:
        label = self._tree.volume_label()
        return {"format": self._tree.description} | ({"label": label} if label else {})

    # How a node is found again.

    @abstractmethod
    def ref_fields(self, ref: Any) -> tuple[Any, ...]:
        """Return the library's reference to a node as plain values."""

    @abstractmethod
    def ref_of(self, fields: list[Any]) -> Any:
        """Return the library's reference of those values."""

    def _handle(self, parsed: Parsed) -> bytes:
        handle = msgspec.msgpack.encode((_TYPES.get(parsed.type, 0), *self.ref_fields(parsed.ref)))
        if len(handle) > HANDLE_MAX:
            raise Damaged("", None, f"{parsed.name!r} is in too many pieces, or too deep")
        return handle

    def _found_again(self, handle: bytes) -> Parsed:
        kind, *fields = msgspec.msgpack.decode(handle)
        kind = _KINDS.get(kind, EntryType.OTHER)
        return Parsed("", kind, ref=self.ref_of(fields), statted=False)

    # The contract.

    def root(self) -> Node:
        with translated():
            parsed = self._tree.root()
            return self._node(parsed if parsed.statted else self._tree.stat(parsed))

    def child(self, directory: bytes, name: bytes) -> Node:
        decoded = self._decoded.get(directory)
        node = self._looked_up(directory, name) if decoded is None else decoded.get(name)
        if node is None:
            raise FileError(errno.ENOENT, name)
        if node.problem:
            raise Damaged("", None, node.problem)
        return node

    def children(self, directory: bytes, cursor: bytes | None = None) -> Nodes:
        start = int(cursor or b"0")
        decoded = self._decoded.get(directory)
        if decoded is None and not self._is_streamed_to(directory, start):
            decoded = self._decode(directory)
        if decoded is None:
            nodes = self._streamed(directory, start)
        else:
            nodes = list(islice(decoded.values(), start, start + PAGE))
        return Nodes(nodes, b"%d" % (start + PAGE) if len(nodes) == PAGE else None)

    def extents(self, file: bytes, offset: int, length: int) -> Iterator[Extent]:
        with translated():
            opened = self._open(file)
            yield from lying(opened, offset, min(length, opened.size - offset))

    def read_at(self, file: bytes, offset: int, length: int) -> bytes:
        with translated():
            opened = self._open(file)
            return bytes(opened.read_at(offset, min(length, opened.size - offset)))

    def xattrs(self, node: bytes) -> dict[bytes, bytes]:
        with translated():
            found = self._tree.xattrs(self._found_again(node))
            return {
                self._bytes(name): bytes(value[: XATTR_MAX + 1]) for name, value in found.items()
            }

    # Directories.

    def _decode(self, directory: bytes) -> dict[bytes, Node] | None:
        """Return the nodes of a directory by name, kept; None when there are too many to keep."""
        nodes: dict[bytes, Node] = {}
        for node in self._parsed_children(directory):
            nodes.setdefault(node.name, node)
            if len(nodes) > CACHED_MAX:
                return None
        self._decoded[directory] = nodes
        return nodes

    def _streamed(self, directory: bytes, start: int) -> list[Node]:
        """Return a page of a directory too large to keep, on from where the last page ended."""
        at, rest = 0, self._parsed_children(directory)
        if self._stream is not None and self._is_streamed_to(directory, start):
            at, rest = self._stream[1:]
        self._stream = None  # an error ends it, and whoever asks again must not find it at its end
        page = list(islice(rest, start - at, start - at + PAGE))
        self._stream = (directory, start + len(page), rest)
        return page

    def _is_streamed_to(self, directory: bytes, start: int) -> bool:
        return self._stream is not None and self._stream[:2] == (directory, start)

    def _parsed_children(self, directory: bytes) -> Iterator[Node]:
        with translated():
            above = self._found_again(directory)
            for parsed in self._children_of(above):
                yield self._node(self._seen(parsed, above))

    def _children_of(self, directory: Parsed) -> Iterator[Parsed]:
        yield from self._tree.children(directory)

    def _seen(self, parsed: Parsed, directory: Parsed) -> Parsed:
        """Return what was found in `directory`, with what the library leaves to us."""
        return parsed

    def _looked_up(self, directory: bytes, name: bytes) -> Node | None:
        """Find a name in a directory that is not decoded: less to read, but more for each name."""
        self._lookups[directory] = self._lookups.get(directory, 0) + 1
        if self._lookups[directory] == LOOKUPS:
            decoded = self._decode(directory)
            if decoded is not None:
                return decoded.get(name)
        with translated():
            text = name.decode("utf-8", self.undecodable)
            above = self._found_again(directory)
            parsed = self._tree.lookup(above, text)
            if parsed is None:
                return None
            if self._bytes(parsed.name) != name:  # the library also finds names that are like it
                alike = (node for node in self._parsed_children(directory) if node.name == name)
                return next(alike, None)
            parsed = parsed if parsed.statted else self._tree.stat(parsed)
            return self._node(self._seen(parsed, above))

    # Nodes.

    def _node(self, parsed: Parsed) -> Node:
        handle = self._handle(parsed)
        target = parsed.link_target
        problem = parsed.error or ""
        if parsed.type is EntryType.SYMLINK and target is None:
            problem = problem or "the target of a symlink cannot be read"
        mtime = parsed.mtime_ns or 0
        mode = parsed.mode if parsed.mode is not None else 0o644
        return Node(
            name=self._bytes(parsed.name),
            handle=handle,
            mode=mode & 0o7777 | _TYPES.get(parsed.type, mode & 0o170000),
            size=parsed.size or 0,
            uid=parsed.uid or 0,
            gid=parsed.gid or 0,
            mtime_ns=mtime,
            atime_ns=mtime if parsed.atime_ns is None else parsed.atime_ns,
            ctime_ns=mtime if parsed.ctime_ns is None else parsed.ctime_ns,
            nlink=parsed.nlink or 1,
            rdev=device_number(parsed.extra.get("rdev")),
            inode=self._inode(parsed, handle),
            target=None if target is None else self._bytes(target),
            has_xattrs=self._has_xattrs(parsed),
            allocated=(parsed.size or 0) if parsed.stored_size is None else parsed.stored_size,
            problem=problem,
        )

    def _inode(self, parsed: Parsed, handle: bytes) -> bytes:
        """Return what all names of one inode share: by default the handle."""
        return handle

    def _has_xattrs(self, parsed: Parsed) -> bool:
        return False

    def _bytes(self, text: str) -> bytes:
        """Return a name or target as it lies on the disk."""
        return text.encode("utf-8", self.undecodable)

    # Files.

    def _open(self, file: bytes) -> RandomAccess:
        opened = self._files.get(file)
        if opened is None:
            opened = self._files[file] = self._tree.open_file(self._found_again(file))
        return opened


def _weight(nodes: dict[bytes, Node]) -> int:
    return 1 + len(nodes)


def lying(opened: RandomAccess, offset: int, length: int) -> Iterator[Extent]:
    """Say where a stretch of what the library opened lies; what it decodes is `ENCODED`."""
    if length <= 0:
        return
    if isinstance(opened, ExtentRA):
        yield from _mapped(opened, offset, length)
        return
    ranges = opened.physical_ranges(offset, length)
    if ranges is None:
        yield Extent(length, ENCODED, 0)
        return
    for disk, at, size in ranges:
        yield Extent(size, HOLE if disk is None else disk, at)
        length -= size
    if length > 0:
        raise Damaged("", None, f"{length} bytes of a file lie beyond the end of the volume")


def _mapped(opened: ExtentRA, offset: int, length: int) -> Iterator[Extent]:
    stop, extents = offset + length, opened.extents
    number = max(0, bisect_right(extents, offset, key=lambda extent: extent.voff) - 1)
    while offset < stop and number < len(extents):
        extent = extents[number]
        begin, end = max(offset, extent.voff), min(stop, extent.voff + extent.length)
        number += 1
        if begin >= end:
            continue
        if offset < begin:
            yield Extent(begin - offset, HOLE, 0)
        if extent.ra is None:
            yield Extent(end - begin, HOLE, 0)
        else:
            yield from lying(extent.ra, extent.roff + begin - extent.voff, end - begin)
        offset = end
    if offset < stop:
        yield Extent(stop - offset, HOLE, 0)

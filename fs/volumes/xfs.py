"""XFS: versions 4 and 5, with the log replayed."""

import stat
from collections.abc import Iterator, Mapping
from errno import ENOENT
from struct import Struct
from uuid import UUID

from backgate.fs.volume import HOLE, Device, Extent, FileSystem, Node, Nodes
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.replay import DAMAGE
from backgate.fs.volumes.xfs_attributes import Attributes, has_attributes
from backgate.fs.volumes.xfs_blocks import ForkBlocks, Seal
from backgate.fs.volumes.xfs_directory import Directories, Named
from backgate.fs.volumes.xfs_extents import ExtentMaps
from backgate.fs.volumes.xfs_geometry import MAGIC, SMALLEST_SECTOR, geometry
from backgate.fs.volumes.xfs_inode import LOCAL, TARGET_MAX, Inode, Inodes
from backgate.fs.volumes.xfs_log import replay_log
from backgate.gateway.errors import Damaged, FileError

PAGE = 1000  # nodes, more or less: a block of the directory is not divided
PAGE_MAX = 4096  # nodes: the largest block with the shortest names has almost as many
PAGE_BLOCKS = 1000  # of a directory, where hardly a name is left in them
_NUMBER, _BOTH = Struct(">Q"), Struct(">QQ")  # handles: the inode; of a directory its parent too
_TARGET_SEAL = Seal(crc=12, address=40, owner=32)
_TARGET_MAGIC, _TARGET_HEADER = b"XSLM", 56


class XfsFileSystem(FileSystem):
    """One XFS file system."""

    name = "xfs"

    @classmethod
    def claims(cls, device: Device) -> bool:
        return device.read_at(0, len(MAGIC)) == MAGIC

    def __init__(self, device: Device) -> None:
        log = replay_log(device, geometry(device))
        self._device, unsealed = log.replay.device, log.unsealed
        self._layout = layout = geometry(self._device, unsealed=0 in unsealed)
        self._maps = maps = ExtentMaps(self._device, layout, unsealed)
        self._blocks = blocks = ForkBlocks(self._device, layout, maps, unsealed)
        self._inodes = Inodes(self._device, layout, unsealed)
        self._directories = Directories(layout, maps, blocks)
        self._attributes = Attributes(layout, blocks)
        self.notes: Mapping[str, str] = {
            "label": layout.label,
            "uuid": str(UUID(bytes=layout.uuid)),
            **log.replay.notes,
            **({DAMAGE: "it says that it needs repair"} if layout.needs_repair else {}),
        }

    def root(self) -> Node:
        return self._node(b"", self._inodes.inode(self._layout.root), self._layout.root)

    def child(self, directory: bytes, name: bytes) -> Node:
        inode, parent = self._directory(directory)
        number = self._directories.number(inode, parent, name)
        if number is None:
            raise FileError(ENOENT, name)
        return self._node(name, self._inodes.inode(number), inode.number)

    def children(self, directory: bytes, cursor: bytes | None = None) -> Nodes:
        inode, parent = self._directory(directory)
        start = _NUMBER.unpack(cursor)[0] if cursor else 0
        nodes: list[Node] = []
        pages = self._directories.pages(inode, parent, start)
        for number, (page, following) in enumerate(pages, 1):
            if nodes and len(nodes) + len(page) > PAGE_MAX:
                return Nodes(nodes, _NUMBER.pack(start))
            nodes, start = nodes + [self._listed(one, inode.number) for one in page], following
            if len(nodes) >= PAGE or number >= PAGE_BLOCKS:
                return Nodes(nodes, _NUMBER.pack(following))
        return Nodes(nodes, None)

    def extents(self, file: bytes, offset: int, length: int) -> Iterator[Extent]:
        for piece, at in self._pieces(self._file(file), offset, length):
            if at is None:
                yield Extent(piece, HOLE, 0)
            else:
                yield from self._device.extents(at, piece)

    def read_at(self, file: bytes, offset: int, length: int) -> bytes:
        inode = self._file(file)
        return b"".join(
            bytes(piece) if at is None else read_exactly(self._device, at, piece, inode.where)
            for piece, at in self._pieces(inode, offset, length)
        )

    def xattrs(self, node: bytes) -> dict[bytes, bytes]:
        return self._attributes.all(self._inode(node))

    def _inode(self, handle: bytes) -> Inode:
        return self._inodes.inode(_NUMBER.unpack_from(handle)[0])

    def _file(self, handle: bytes) -> Inode:
        inode = self._inode(handle)
        if not stat.S_ISREG(inode.mode):
            raise Damaged(inode.where, None, "is no regular file")
        if inode.is_realtime:
            raise Damaged(inode.where, None, "lies on a realtime device, which is not supported")
        return inode

    def _directory(self, handle: bytes) -> tuple[Inode, int]:
        inode = self._inode(handle)
        if not stat.S_ISDIR(inode.mode) or len(handle) != _BOTH.size:
            raise Damaged(inode.where, None, "is no directory")
        return inode, _BOTH.unpack(handle)[1]

    def _pieces(self, inode: Inode, offset: int, length: int) -> Iterator[tuple[int, int | None]]:
        """Give the lengths of what makes up a range of a file, and where; None where zeros do."""
        stop, size = min(offset + length, inode.size), self._layout.block_size
        if offset >= stop:
            return
        for record in self._maps.mapped(inode, inode.data, offset // size, -(-stop // size)):
            first, last = max(record.first * size, offset), min(record.stop * size, stop)
            if offset < first:
                yield first - offset, None
            at = self._layout.block_at(record.block) + first - record.first * size
            if at + last - first > self._device.size:
                raise Damaged(inode.where, at, "its data lies beyond the end of the volume")
            yield last - first, None if record.is_unwritten else at
            offset = last
        if offset < stop:
            yield stop - offset, None

    def _listed(self, named: Named, directory: int) -> Node:
        try:
            return self._node(named.name, self._inodes.inode(named.number), directory)
        except Damaged as error:
            handle = _NUMBER.pack(named.number)
            return Node(name=named.name, handle=handle, mode=stat.S_IFREG, problem=str(error))

    def _node(self, name: bytes, inode: Inode, directory: int) -> Node:
        number = _NUMBER.pack(inode.number)
        is_directory = stat.S_ISDIR(inode.mode)
        return Node(
            name=name,
            handle=_BOTH.pack(inode.number, directory) if is_directory else number,
            mode=inode.mode,
            size=inode.size,
            uid=inode.uid,
            gid=inode.gid,
            mtime_ns=inode.mtime_ns,
            atime_ns=inode.atime_ns,
            ctime_ns=inode.ctime_ns,
            nlink=inode.nlink,
            rdev=inode.rdev,
            inode=number,
            target=self._target(inode) if stat.S_ISLNK(inode.mode) else None,
            has_xattrs=has_attributes(inode),
            allocated=inode.allocated,
        )

    def _target(self, inode: Inode) -> bytes:
        if inode.data.format == LOCAL:
            target = inode.data.data[: inode.size]
        else:
            target = b"".join(self._target_pieces(inode))
        if len(target) != inode.size or not target or b"\0" in target:
            raise Damaged(inode.where, None, "the target of a symlink does not hold together")
        return target

    def _target_pieces(self, inode: Inode) -> Iterator[bytes]:
        left = inode.size
        for record in self._maps.mapped(inode, inode.data, 0, TARGET_MAX):
            if left <= 0 or record.length > TARGET_MAX // SMALLEST_SECTOR + 1:
                return
            block = self._blocks.block(inode, inode.data, record.first, record.length, _TARGET_SEAL)
            if self._layout.is_v5:
                if not block.startswith(_TARGET_MAGIC):
                    raise Damaged(inode.where, None, "the target of a symlink is elsewhere")
                block = block[_TARGET_HEADER:]
            yield block[:left]
            left -= len(block)

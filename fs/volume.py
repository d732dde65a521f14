"""The contract of what lies on a disk: layers that hold volumes, and file systems that hold files.

Plain blocking Python, like a provider: all of it runs in the worker process that parses untrusted
images (`fs/parser`), never beside the gateway's own state. Bytes are asked for by `read_at`; and
where they lie untouched on a disk, `extents` says where, so that the contents of a file need not
pass through the worker at all.

A new layer or file system is one file in `fs/volumes/` and one line in its registry.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

from msgspec import Struct

DOUBT = "doubt"  # of a volume's notes: why something else may be what counts
HOLE = -1  # the `disk` of an extent of zeros that are stored nowhere
ENCODED = -2  # the `disk` of an extent whose bytes only `read_at` can tell: decoded, or in memory


class Extent(NamedTuple):
    """`length` bytes of a device or file, and where they are."""

    length: int  # bytes, more than 0
    disk: int  # number of the disk, HOLE or ENCODED
    offset: int  # bytes on that disk; 0 where it has no meaning


class Device(Protocol):
    """Bytes of a known size: a disk, a partition, a logical volume. Errors are `Damaged`."""

    @property
    def size(self) -> int:
        """The length in bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, fewer only where the device ends."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say where `[offset, offset + length)`, clipped to the size, lies; in order, no gap."""


class Volume(Struct, frozen=True, kw_only=True):
    """A device with what is known of it: a disk, a partition, a logical volume, an opened LUKS."""

    name: str  # unique among its siblings, can be a file's name: "1-EFI System", "vg0-root"
    device: Device
    kind: str  # "disk", "partition", "lvm", "md", "luks", "bitlocker"
    label: str = ""  # what the layer calls it: a partition's name or type, a volume's name
    notes: Mapping[str, str] = {}  # for the administrator: UUIDs, state, what was left out
    problem: str = ""  # why it cannot be used: a member is missing, a passphrase is needed
    members: Sequence[int] = (0,)  # which of the members that its layer was given it lies on


class Layer(ABC):
    """A partition table, volume manager, RAID or encryption: volumes that hold volumes."""

    name: ClassVar[str]
    gathers: ClassVar[bool] = False  # True: it wants all of its members on all disks at once
    certain: ClassVar[bool] = False  # True: its mark outweighs that of a file system beside it
    divides: ClassVar[bool] = False  # True: a partition table, not looked for inside a partition
    replaces: ClassVar[bool] = False  # True: its one volume stands for its member: an opened LUKS

    @abstractmethod
    def claims(self, device: Device) -> bool:
        """True when `device` carries this layer's mark; reads little."""

    def is_beside_tables(self, device: Device) -> bool:
        """True when a partition table beside its mark on `device` is none of what it holds.

        Then one of both is left over from earlier, and both are shown.
        """
        return False

    @abstractmethod
    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        """Return the volumes in `members` (one, unless it gathers), all of which it claims.

        What cannot be opened comes out with its `problem`; `Damaged` when nothing can be told.
        """


class Node(Struct, frozen=True, kw_only=True, array_like=True):
    """One name in a file system, with what stat(2) tells of it."""

    name: bytes
    handle: bytes  # finds this node again, also in a worker started anew; at most HANDLE_MAX
    mode: int  # type and permission bits, as st_mode
    size: int = 0  # bytes
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0  # nanoseconds since 1970; may be negative
    atime_ns: int = 0
    ctime_ns: int = 0
    nlink: int = 1
    rdev: int = 0
    inode: bytes = b""  # nodes of one file system that share it are one inode; empty: none does
    target: bytes | None = None  # of a symlink
    has_xattrs: bool = False
    allocated: int | None = None  # bytes stored, as st_blocks * 512; None: as `size`
    problem: str = ""  # why nothing but the name can be told: `child` raises it as `Damaged`


HANDLE_MAX = 4096  # bytes; a handle travels with every request
XATTR_MAX = 64 << 10  # bytes of an extended attribute that the kernel gives to anybody
XATTR_NAME_MAX = 255  # bytes of a name by which it may be asked for


class Nodes(NamedTuple):
    """One page of a directory, and the cursor for the next (None: this was the last)."""

    nodes: Sequence[Node]
    cursor: bytes | None


class FileSystem(ABC):
    """One file system, opened for reading. Errors are `Damaged`, and `FileError` (ENOENT)."""

    name: ClassVar[str]  # "ext4", "xfs": as mount(8) and blkid(8) call it

    notes: Mapping[str, str]  # label, uuid, state; what a replay of the journal did

    @classmethod
    @abstractmethod
    def claims(cls, device: Device) -> bool:
        """True when `device` carries this file system's mark; reads little."""

    @abstractmethod
    def __init__(self, device: Device) -> None:
        """Open it; a journal that was not written back is replayed, in memory, over the device."""

    @abstractmethod
    def root(self) -> Node:
        """Return the directory at the top; its name is empty."""

    @abstractmethod
    def child(self, directory: bytes, name: bytes) -> Node:
        """Return the node `name` in the directory with this handle; `FileError(ENOENT)`."""

    @abstractmethod
    def children(self, directory: bytes, cursor: bytes | None = None) -> Nodes:
        """Return a page of the directory with this handle, without `.` and `..`.

        Each name comes exactly once; a directory is never short: `Damaged` is raised instead.
        """

    @abstractmethod
    def extents(self, file: bytes, offset: int, length: int) -> Iterator[Extent]:
        """Say where `[offset, offset + length)` of the file, clipped to its size, lies."""

    @abstractmethod
    def read_at(self, file: bytes, offset: int, length: int) -> bytes:
        """Return bytes of the file with this handle, wherever they lie."""

    @abstractmethod
    def xattrs(self, node: bytes) -> dict[bytes, bytes]:
        """Return the extended attributes, names with their namespace, values as getxattr(2).

        Of a value longer than `XATTR_MAX`, `XATTR_MAX` + 1 bytes: as many as nobody can be given.
        """

"""What the gateway and a parser worker say to each other: msgpack in frames of a bounded length.

The gateway asks one thing at a time. Until the answer comes the worker may itself ask, for bytes of
a source or for a file beside an image. Nothing here can name code: messages are data.
"""

import struct
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from backgate.fs.volume import HANDLE_MAX, Node

FRAME_MAX = 8 << 20  # bytes; a page of nodes with the longest names and handles stays below
READ_MAX = 1 << 20  # bytes of a file in one answer
WANT_MAX = 4 << 20  # bytes of a source in one question
EXTENTS_MAX = 4096  # in one answer; whoever needs more asks on from there
NODES_MAX = 4096  # in one answer
XATTRS_MAX = 1024  # of one node
XATTRS_SIZE_MAX = 7 << 20  # bytes of names and values of one node
VOLUMES_MAX = 4096  # on all disks of a backup
TEXT_MAX = 4096  # characters of a name, a label or a reason
NOTES_MAX = 64  # of one volume

LENGTH = struct.Struct(">I")  # in front of each frame

Text: TypeAlias = Annotated[str, Meta(max_length=TEXT_MAX)]
Handle: TypeAlias = Annotated[bytes, Meta(max_length=HANDLE_MAX)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Number: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]
Notes: TypeAlias = Annotated[dict[Text, Text], Meta(max_length=NOTES_MAX)]


class Message(Struct, frozen=True, array_like=True):
    """Anything that is said; the tag is the name of its class."""


class Disk(Struct, frozen=True, array_like=True):
    """A disk as the worker is told of it."""

    name: str
    kind: str  # "raw", or the container it comes in: "qcow2", "vmdk", "vhdx"
    source: int  # number of the source that has its bytes
    problem: str = ""  # why there are no bytes of it


# What the gateway asks.


class Open(Message, frozen=True, tag=True):
    """The first request: which disks there are. Answered by `Opened`."""

    sizes: Sequence[int]  # bytes, of each source
    disks: Sequence[Disk]
    passphrases: Sequence[bytes]


class Discover(Message, frozen=True, tag=True):
    """Say which volumes there are. Answered by `Volumes`."""


class Facts(Message, frozen=True, tag=True):
    """Open the file system of a volume and say what is known of it. Answered by `Told`."""

    volume: int


class Root(Message, frozen=True, tag=True):
    """Answered by `Nodes` with one."""

    volume: int


class Child(Message, frozen=True, tag=True):
    """Answered by `Nodes` with one, or `Failed` with ENOENT."""

    volume: int
    directory: bytes
    name: bytes


class Children(Message, frozen=True, tag=True):
    """Answered by `Nodes`."""

    volume: int
    directory: bytes
    cursor: bytes | None


class Xattrs(Message, frozen=True, tag=True):
    """Answered by `Values`."""

    volume: int
    node: bytes


class Extents(Message, frozen=True, tag=True):
    """Where a file lies, or with None a volume or disk itself. Answered by `Lying`."""

    volume: int
    file: bytes | None
    offset: int
    length: int


class Read(Message, frozen=True, tag=True):
    """The bytes of a file, or with None of a volume or disk itself. Answered by `Bytes`."""

    volume: int
    file: bytes | None
    offset: int
    length: int


Request: TypeAlias = Open | Discover | Facts | Root | Child | Children | Xattrs | Extents | Read


# What the worker answers.


class DiskFacts(Struct, frozen=True, array_like=True):
    size: Count
    problem: Text  # why it cannot be read at all; empty: it can
    notes: Notes


class Opened(Message, frozen=True, tag=True):
    disks: Annotated[list[DiskFacts], Meta(max_length=VOLUMES_MAX)]


class VolumeFacts(Struct, frozen=True, array_like=True):
    path: Annotated[list[Text], Meta(min_length=1, max_length=16)]  # names, below the disk
    disk: Number | None  # that it is a part of; None: gathered from `disks`
    disks: Annotated[list[Number], Meta(max_length=VOLUMES_MAX)]  # that it lies on
    kind: Text
    label: Text
    file_system: Text  # empty: none that is known
    size: Count
    problem: Text
    member_of: Text  # the layer that shows its contents elsewhere
    notes: Notes


class Volumes(Message, frozen=True, tag=True):
    volumes: Annotated[list[VolumeFacts], Meta(max_length=VOLUMES_MAX)]


class Told(Message, frozen=True, tag=True):
    notes: Notes


class Nodes(Message, frozen=True, tag=True):
    nodes: Annotated[list[Node], Meta(max_length=NODES_MAX)]
    cursor: Handle | None


class Values(Message, frozen=True, tag=True):
    values: Annotated[list[tuple[bytes, bytes]], Meta(max_length=XATTRS_MAX)]


class Lying(Message, frozen=True, tag=True):
    extents: Annotated[list[tuple[int, int, int]], Meta(max_length=EXTENTS_MAX)]


class Bytes(Message, frozen=True, tag=True):
    data: Annotated[bytes, Meta(max_length=READ_MAX)]


class Failed(Message, frozen=True, tag=True):
    """A sure answer of a file system (`errno`), or what does not hold together (`errno` 0)."""

    errno: Annotated[int, Meta(ge=0, le=4095)]
    where: Text
    offset: Count | None
    reason: Text


class Unavailable(Message, frozen=True, tag=True):
    """What the worker asked for did not come; the gateway knows why."""


# What the worker asks.


class Want(Message, frozen=True, tag=True):
    """Bytes of a source. Answered by `Given`, or `Lost`."""

    source: Number
    offset: Count
    length: Annotated[int, Meta(gt=0, le=WANT_MAX)]


class WantFile(Message, frozen=True, tag=True):
    """A file beside a disk's: a parent, an extent. Answered by `GivenFile`, `NoFile` or `Lost`."""

    disk: Number
    name: Text


Said: TypeAlias = (
    Opened
    | Volumes
    | Told
    | Nodes
    | Values
    | Lying
    | Bytes
    | Failed
    | Unavailable
    | Want
    | WantFile
)


class Given(Message, frozen=True, tag=True):
    data: bytes


class GivenFile(Message, frozen=True, tag=True):
    source: int  # its number
    size: int  # bytes


class NoFile(Message, frozen=True, tag=True):
    """There is surely none of that name, or it may not be had."""


class Lost(Message, frozen=True, tag=True):
    reason: str
    is_damage: bool = False  # for good: of one disk among all, or too many files


Heard: TypeAlias = Request | Given | GivenFile | NoFile | Lost

_encoder = msgspec.msgpack.Encoder()


def frame(message: Message) -> bytes:
    """Return `message` as it is sent; `ValueError` when it is longer than anybody may send."""
    data = _encoder.encode(message)
    if len(data) > FRAME_MAX:
        raise ValueError(f"a message of {len(data)} bytes")
    return LENGTH.pack(len(data)) + data

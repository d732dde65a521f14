"""The JSON documents of a repository, typed, with every number bounded.

Fields that we do not use are not named here and are skipped; Go writes `null` for an empty list.
"""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from backgate.fs.formats.restic.crypto import Unsound
from backgate.gateway.source import Data

ID = 32  # bytes: a sha256
HEX_ID = 64  # characters

Unsigned32 = Annotated[int, Meta(ge=0, lt=1 << 32)]
Size = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
HexId = Annotated[str, Meta(min_length=HEX_ID, max_length=HEX_ID)]
T = TypeVar("T")


class KeyFile(Struct):
    """`keys/<id>`: how the password becomes a key, and the master key sealed with it."""

    kdf: str
    N: Annotated[int, Meta(ge=2, le=1 << 30)]
    r: Annotated[int, Meta(ge=1, le=1 << 20)]
    p: Annotated[int, Meta(ge=1, le=1 << 20)]
    salt: bytes
    data: bytes


class MacKey(Struct):
    k: bytes
    r: bytes


class MasterKey(Struct):
    mac: MacKey
    encrypt: bytes


class Config(Struct):
    version: int
    id: HexId


class Summary(Struct):
    total_bytes_processed: Size | None = None


class Snapshot(Struct):
    """`snapshots/<id>`. `paths` is absolute even where the tree is not: only for showing."""

    time: str
    tree: HexId
    hostname: str = ""
    username: str = ""
    paths: list[str] | None = None
    tags: list[str] | None = None
    original: str | None = None
    program_version: str = ""
    summary: Summary | None = None


class IndexedBlob(Struct, gc=False):
    id: str
    offset: int
    length: int
    uncompressed_length: int = 0


class IndexedPack(Struct, gc=False):
    id: str
    blobs: list[IndexedBlob] | None = None


class Index(Struct, gc=False):
    """`index/<id>`; `supersedes` is ignored, as restic does: what exists counts."""

    packs: list[IndexedPack] | None = None


class Node(Struct, gc=False):
    """One name in a tree. `content` and the attributes stay raw until somebody opens the file."""

    name: str
    type: str = ""
    mode: Unsigned32 = 0
    mtime: str = ""
    atime: str = ""
    ctime: str = ""
    uid: Unsigned32 = 0
    gid: Unsigned32 = 0
    inode: int = 0
    device_id: int = 0
    links: int = 0
    size: Size = 0
    device: int = 0
    linktarget: str = ""
    linktarget_raw: bytes | None = None
    extended_attributes: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    subtree: HexId | None = None
    error: str = ""


class ExtendedAttribute(Struct):
    name: str
    value: bytes | None = None


class Named(Struct, gc=False):
    name: str


class RawTree(Struct):
    nodes: list[msgspec.Raw] | None = None


class NamedTree(Struct):
    nodes: list[Named] | None = None


def parse(data: Data, document: type[T]) -> T:
    """Return `data` as a `document`; `Unsound` when it is not one."""
    try:
        return msgspec.json.decode(data, type=document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unsound(f"not the JSON of {document.__name__}: {error}") from None


def id_from_hex(text: str) -> bytes:
    """Return the 32 bytes of an id."""
    if len(text) != HEX_ID:
        raise Unsound(f"not an id: {text!a:.80}")
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != ID:  # `fromhex` takes spaces
        raise Unsound(f"not an id: {text!a:.80}")
    return value

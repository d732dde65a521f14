"""What the crash journal says: its records, and the state that they add up to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from backgate.gateway.attributes import Attributes
from backgate.gateway.extents import Backing
from backgate.gateway.provider import ObjectInfo

HIDDEN = ".backgate/"  # the prefix of the gateway's own objects, which the tree does not show


class Header(msgspec.Struct, frozen=True, tag="header"):
    """Begins the log of one run."""

    gateway: str  # names this spool among all that write to one store
    boot: str  # of the machine; what was not synchronized before another boot is not to be trusted
    is_lazy: bool = False  # close returned before the store had the file


class Held(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of a file that lie in an object."""

    start: int
    stop: int
    offset: int
    key: str
    size: int
    mtime_ns: int
    etag: str

    @classmethod
    def of(cls, backing: Backing) -> "Held":
        info = backing.info
        return cls(
            backing.start, backing.stop, backing.offset,
            info.key, info.size, info.mtime_ns, info.etag,
        )  # fmt: skip

    def backing(self) -> Backing:
        info = ObjectInfo(self.key, self.size, self.mtime_ns, self.etag)
        return Backing(self.start, self.stop, info, self.offset)


class Spooled(msgspec.Struct, frozen=True, tag="file", kw_only=True):
    """A file of the spool as it is now; replaces what was said of it before."""

    number: int
    key: str
    attributes: Attributes
    size: int  # bytes
    local: list[tuple[int, int]]  # ranges whose bytes are in the local file
    held: list[Held]
    epoch: int  # it is stored after all that was acknowledged in earlier ones
    is_durable: bool  # its bytes were synchronized before this was written
    is_closed: bool
    is_new: bool  # the store had no object of its name
    if_absent: bool  # it is stored only where there is no object of its name
    is_taken: bool = False  # an empty object keeps its name from other gateways
    since_ns: int = 0  # when it came into the spool
    reason: str = ""  # why it could not be stored


class Left(msgspec.Struct, frozen=True, tag="left"):
    """Bytes of a file have left the local file for an object."""

    number: int
    held: Held


class Named(msgspec.Struct, frozen=True, tag="named"):
    """A file of the spool has another name; nothing needs to be done for what had it before."""

    number: int
    key: str
    replaced: int = 0  # the number of that file, if it is of the spool; they begin with 1


class Attributed(msgspec.Struct, frozen=True, tag="attributes"):
    """A file of the spool has other attributes."""

    number: int
    attributes: Attributes


class Elsewhere(msgspec.Struct, frozen=True, tag="elsewhere"):
    """An object that holds bytes of files is another one now."""

    key: str
    held: Held  # of which only the object counts


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """A file is stored, removed or discarded: nothing needs to be done for it."""

    number: int


class Beginning(msgspec.Struct, frozen=True, tag="beginning"):
    """A multipart upload is about to be begun."""

    number: int
    key: str
    at_ns: int  # nanoseconds since 1970


class Found(msgspec.Struct, frozen=True, tag="found"):
    """It is sure which upload, if any, came of a beginning."""

    number: int


class Began(msgspec.Struct, frozen=True, tag="began"):
    """A multipart upload was begun."""

    upload: str
    key: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A multipart upload was committed or aborted."""

    upload: str


class Aside(msgspec.Struct, frozen=True, tag="aside"):
    """A hidden object is about to be made."""

    key: str


class Cleared(msgspec.Struct, frozen=True, tag="cleared"):
    """Hidden objects were deleted."""

    keys: list[str]


class Move(msgspec.Struct, frozen=True, tag="move"):
    """An object, or all below a prefix, is about to be renamed in the store."""

    number: int
    source: str
    target: str
    is_taken: bool = True  # `target` is ours; False: that is being asked for
    since_ns: int = 0  # when it was announced
    is_copied: bool = False  # all copies are there: what is left to do is to delete the originals

    @property
    def is_directory(self) -> bool:
        """True when all below a prefix is renamed."""
        return self.source.endswith("/")


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """A rename in the store has ended."""

    number: int


Record: TypeAlias = (
    Header
    | Spooled
    | Left
    | Named
    | Attributed
    | Elsewhere
    | Gone
    | Beginning
    | Found
    | Began
    | Ended
    | Aside
    | Cleared
    | Move
    | Moved
)


@dataclass(slots=True)
class State:
    """What all records of a log together say."""

    header: Header = field(default_factory=lambda: Header("", ""))
    files: dict[int, Spooled] = field(default_factory=dict)  # in the order they became durable
    beginnings: dict[int, Beginning] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)  # upload -> key
    asides: set[str] = field(default_factory=set)  # keys
    moves: dict[int, Move] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        """Change the state as `record` says; one that fits nothing changes nothing."""
        match record:
            case Header():
                self.header = record
            case Spooled(number=number):
                before = self.files.get(number)
                if before is not None and record.is_durable and not before.is_durable:
                    del self.files[number]  # its turn counts from here
                self.files[number] = record
            case Left(number=number, held=held) if number in self.files:
                self.files[number] = _without(self.files[number], held)
            case Named(number=number, key=key, replaced=replaced) if number in self.files:
                self.files.pop(replaced, None)
                self.files[number] = msgspec.structs.replace(self.files[number], key=key)
            case Attributed(number=number, attributes=told) if number in self.files:
                self.files[number] = msgspec.structs.replace(self.files[number], attributes=told)
            case Elsewhere(key=key, held=held):
                self.files = {n: _elsewhere(file, key, held) for n, file in self.files.items()}
            case Gone(number=number):
                self.files.pop(number, None)
            case Beginning(number=number):
                self.beginnings[number] = record
            case Found(number=number):
                self.beginnings.pop(number, None)
            case Began(upload=upload, key=key):
                self.uploads[upload] = key
            case Ended(upload=upload):
                self.uploads.pop(upload, None)
            case Aside(key=key):
                self.asides.add(key)
            case Cleared(keys=keys):
                self.asides.difference_update(keys)
            case Move(number=number):
                self.moves[number] = record
            case Moved(number=number):
                self.moves.pop(number, None)

    def records(self) -> Iterator[Record]:
        """Return the fewest records that say the same."""
        yield self.header
        yield from self.beginnings.values()
        yield from (Began(upload, key) for upload, key in self.uploads.items())
        yield from (Aside(key) for key in sorted(self.asides))
        yield from self.moves.values()
        yield from self.files.values()


def _elsewhere(file: Spooled, key: str, now: Held) -> Spooled:
    """Return `file` with the bytes that lay in `key` in the object of `now`."""
    if not any(held.key == key for held in file.held):
        return file
    moved = [
        Held(held.start, held.stop, held.offset, now.key, now.size, now.mtime_ns, now.etag)
        if held.key == key
        else held
        for held in file.held
    ]
    return msgspec.structs.replace(file, held=moved)


def _without(file: Spooled, held: Held) -> Spooled:
    """Return `file` with the bytes of `held` no longer in the local file."""
    local: list[tuple[int, int]] = []
    for start, stop in file.local:
        local += [(start, min(stop, held.start)), (max(start, held.stop), stop)]
    kept = [(start, stop) for start, stop in local if start < stop]
    return msgspec.structs.replace(file, local=kept, held=[*file.held, held])

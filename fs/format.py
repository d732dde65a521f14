"""The contract of a backup format: find completed backups among a repository's objects, and show
each as a tree.

A format only reads, through `Objects`; it knows neither stores nor caches nor FUSE. Everything it
reads is
untrusted: what does not hold together is `Damaged`, and harms that backup alone.

`tests/contracts/format_contract.py` is the suite that every format instantiates.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

import trio

from backgate.fs.parser.places import Places
from backgate.fs.tree import Tree
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source


class Objects(Protocol):
    """A repository's published objects, for reading only. No write verb exists here.

    A fault of the store is waited out for as long as `backups/` is patient (a minute), then
    `StoreError`.
    """

    async def info(self, key: str) -> ObjectInfo:
        """Return the object `key`; from the index when that is sure, else by asking. `NotFound`."""

    async def renewed(self, key: str) -> ObjectInfo:
        """Return the object `key` as it is now, whoever wrote it; `NotFound`, `StoreError`.

        One request, and no listing; none where nobody but this gateway writes.
        """

    async def below(self, prefix: str, after: str = "") -> Sequence[ObjectInfo]:
        """Return the next objects (a page, ascending by key) with `prefix` behind the key
        `after`; empty: no more.

        Whole or an error: it waits for the listing when the index does not know the prefix
        completely, and raises `StoreError` when that fails.
        """

    async def confirm(self, prefix: str) -> None:
        """Have `below` tell of what is below `prefix` now, for whoever misses something there.

        What others write to the store may else be known a minute later. `StoreError`.
        """

    def source(self, info: ObjectInfo) -> Source:
        """Return the object's bytes, cached in blocks on disk, any range at a time."""

    def sequential(self, info: ObjectInfo) -> AbstractContextManager[Source]:
        """The same for one pass from start to end: large GETs run ahead of the reader."""


Count: TypeAlias = Callable[[int, int], None]  # how many more are done, and how many more are due


def uncounted(done: int, due: int) -> None:
    """Count nothing: nobody looks on."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the gateway lends a format."""

    objects: Objects
    cache_directory: Path  # this format's own folder in the cache, 0700; may vanish between runs
    secret: "bytes | None"  # the configured secret of this format (`secrets = { NAME = ... }`)
    nursery: trio.Nursery  # for prefetching; cancelled when the repository closes
    workers: trio.CapacityLimiter  # for `trio.to_thread.run_sync`: decompression, MACs, hashes
    memory_limit: int  # bytes that all of this format's caches together may hold in memory
    passphrases: Sequence[bytes] = ()  # that may open encrypted volumes inside of disks
    parsers: Places = field(default_factory=Places)  # for the parsers of all formats together


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One backup that a format found; complete, or with the reason why it is not shown.

    `path` is where it appears below `backups/<format>/`: the subject's components, then the time
    (if the
    format has times). `time_ns` orders the siblings; the newest is `latest` where `has_latest`.
    """

    path: tuple[str, ...]
    key: str  # the object that announces it, for messages
    time_ns: int  # nanoseconds since 1970
    size: int | None = None  # bytes, when cheaply known
    version: str = ""  # changes with what is shown, where `key` can be stored anew
    is_complete: bool = True
    reason: str = ""  # why it is not shown, or what the administrator should know
    has_latest: bool = False  # its parent directory is one of times and gets a `latest` symlink
    notes: Mapping[str, str] = field(default_factory=dict)  # for `backgate backups --json`
    files: Mapping[str, bytes] = field(
        default_factory=dict
    )  # shown at `path` when it cannot be opened


class BackupFormat(ABC):
    """One kind of backup. Instances live as long as the repository is open."""

    name: str  # the first component below `backups/`

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings

    @abstractmethod
    def is_landmark(self, key: str) -> bool:
        """True when an object of this name may announce backups of this format; asked of every
        key, so cheap.
        """

    @abstractmethod
    async def backups(self, landmarks: Sequence[ObjectInfo]) -> list[Backup]:
        """Return all backups, complete or not, that `landmarks` (all of the repository's) announce.

        A landmark that cannot be read yields an incomplete `Backup` with the reason, and stops no
        other. Only a `StoreError` is raised, `Unreachable` as a rule, and only when nothing could
        be asked: that is not missing.
        Called again whenever landmarks changed, so what was learnt of unchanged ones is kept.
        """

    async def examined(self, backups: Sequence[Backup], count: Count = uncounted) -> list[Backup]:
        """Return the same backups as `backups` found them, after a closer look at each.

        One of which something is missing is incomplete then, with the reason. What is read for it
        is little, and of what did not change nothing the next time. Raises only `Unreachable`.
        `count` is told what there is to be looked at, and of each when that is done.
        """
        await trio.lowlevel.checkpoint()
        return list(backups)

    @abstractmethod
    def open(self, backup: Backup) -> AbstractAsyncContextManager[Tree]:
        """Open a complete backup as an immutable tree.

        Raises `Replaced` when what is there by now is another version than `backup` tells of.
        """

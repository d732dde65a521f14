"""What lies on the disks of one backup, asked of a worker that may die of it.

Requests are served one after another by one task, so whoever asked may go away without harm. A
worker that fails is ended, the log says of what, and another one takes its place; a request that
fails twice is `Damaged`, and so from then on. A worker that nobody asks for a while is ended too.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import trio
from cachetools import LRUCache

from backgate.fs.parser.blocks import BLOCK, Blocks
from backgate.fs.parser.checks import (
    Garbage,
    answer_to,
    checked_bytes,
    checked_extents,
    checked_nodes,
    checked_notes,
    checked_values,
    checked_volumes,
)
from backgate.fs.parser.messages import (
    READ_MAX,
    Bytes,
    Child,
    Children,
    Discover,
    Disk,
    Extents,
    Facts,
    Given,
    GivenFile,
    Lost,
    Lying,
    Message,
    Nodes,
    NoFile,
    Notes,
    Open,
    Opened,
    Read,
    Request,
    Root,
    Said,
    Told,
    Values,
    Volumes,
    Want,
    WantFile,
    Xattrs,
    frame,
)
from backgate.fs.parser.process import PATIENCE, Ended, NotStarted, Worker, start_worker
from backgate.fs.volume import Node
from backgate.gateway.errors import BackgateError, Damaged, StoreError
from backgate.gateway.source import Source

IDLE = 60.0  # seconds without a request after which the worker is ended
TRIES = 2  # workers that a request may cost
DEADLY_MAX = 1000  # requests remembered that cost so many
FILES_MAX = 64  # files beside images that one backup may be made of
START_PATIENCE = 2 * PATIENCE  # seconds until a worker must have imported what it needs
KEYS_PATIENCE = 60.0  # seconds more that trying a passphrase may take: that is what it is for

log = logging.getLogger(__name__)

# Returns the file of that name beside the disk of that number; None: there is none to be had.
Siblings: TypeAlias = Callable[[int, str], Awaitable[Source | None]]
Extent: TypeAlias = tuple[int, int, int]  # length, disk or HOLE or ENCODED, offset
Answer = TypeVar("Answer")


class Unparsed(Damaged):
    """No worker could be had to look: what was asked for may be sound, and can be had later."""


@dataclass(slots=True, eq=False)
class _Job:
    """A request on its way."""

    request: Request
    check: Callable[[Said], Any]
    ended: trio.Event = field(default_factory=trio.Event)
    answer: Any = None
    error: BackgateError | None = None
    is_answered: bool = False


class Parser:
    """The disks of one backup; `run` must run while it is asked."""

    def __init__(
        self,
        where: str,
        disks: Sequence[Disk],
        sources: list[Source],
        *,
        passphrases: Sequence[bytes],
        siblings: Siblings,
        memory: int,
        start: Callable[[], Worker] = start_worker,
    ) -> None:
        """`where` is what messages call the backup; `memory` is for blocks, in bytes."""
        self.where, self._disks, self._sources = where, disks, sources
        self._passphrases, self._siblings = passphrases, siblings
        self.blocks = Blocks(where, sources, memory)
        self._files: dict[tuple[int, str], int] = {}  # beside images: number of the source
        self._start_worker = start
        self._worker: Worker | None = None
        self._opened: Opened | None = None
        self._volumes: Volumes | None = None
        self._lost: BackgateError | None = None  # what kept us from answering the worker
        self._is_search = False  # it is looking for volumes on all disks
        self._deadly: LRUCache[bytes, str] = LRUCache(DEADLY_MAX)
        self._send, self._receive = trio.open_memory_channel[_Job](0)

    @property
    def sources(self) -> Sequence[Source]:
        """The sources that extents speak of, by number."""
        return self._sources

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            with self._receive:
                async with trio.open_nursery() as nursery:
                    while True:
                        await self._serve(await self._next(), nursery)
        finally:
            self._end_worker()

    # What can be asked. All raise `Damaged` and `StoreError`.

    async def opened(self) -> Opened:
        """Return how large the disks are."""
        opened: Opened = await self._ask(self._open(), lambda said: answer_to(said, Opened))
        return opened

    async def volumes(self) -> Volumes:
        """Return what volumes there are."""
        if self._volumes is None:
            self._volumes = await self._ask(Discover(), self._checked)
        return self._volumes

    async def facts(self, volume: int) -> Notes:
        """Return what the file system of a volume tells of itself."""
        return await self._ask(
            Facts(volume), lambda said: checked_notes(answer_to(said, Told).notes)
        )

    async def root(self, volume: int) -> Node:
        """Return the root directory of a volume's file system."""
        return await self._ask(Root(volume), _only_root)

    async def child(self, volume: int, directory: bytes, name: bytes) -> Node:
        """Return a node by its name; `FileError(ENOENT)`."""

        def check(said: Said) -> Node:
            nodes = checked_nodes(answer_to(said, Nodes)).nodes
            if [node.name for node in nodes] != [name]:
                raise Garbage("another name than was asked for")
            return nodes[0]

        return await self._ask(Child(volume, directory, name), check)

    async def children(self, volume: int, directory: bytes, cursor: bytes | None) -> Nodes:
        """Return a page of a directory."""
        return await self._ask(
            Children(volume, directory, cursor),
            lambda said: checked_nodes(answer_to(said, Nodes)),
        )

    async def xattrs(self, volume: int, node: bytes) -> dict[bytes, bytes]:
        """Return the extended attributes of a node."""
        return await self._ask(
            Xattrs(volume, node), lambda said: checked_values(answer_to(said, Values))
        )

    async def extents(
        self, volume: int, file: bytes | None, offset: int, length: int
    ) -> Sequence[Extent]:
        """Return where the beginning of a stretch of a file lies, or of a volume itself (None)."""

        def check(said: Said) -> Sequence[Extent]:
            sizes = [source.size for source in self._sources]
            return checked_extents(answer_to(said, Lying), length, sizes)

        return await self._ask(Extents(volume, file, offset, length), check)

    async def read(self, volume: int, file: bytes | None, offset: int, length: int) -> bytes:
        """Return bytes of a file, at most `READ_MAX`, or of a volume itself (None)."""
        length = min(length, READ_MAX)
        return await self._ask(
            Read(volume, file, offset, length),
            lambda said: checked_bytes(answer_to(said, Bytes), length),
        )

    # How it is asked.

    async def _ask(self, request: Request, check: Callable[[Said], Answer]) -> Answer:
        job = _Job(request, check)
        try:
            await self._send.send(job)
        except trio.BrokenResourceError as error:
            raise BackgateError(f"{self.where}: it is being closed") from error
        await job.ended.wait()
        if job.error is not None:
            raise job.error.with_traceback(None)
        if not job.is_answered:
            raise BackgateError(f"{self.where}: it is being closed")
        answer: Answer = job.answer
        return answer

    async def _next(self) -> _Job:
        while True:
            with trio.move_on_after(IDLE):
                return await self._receive.receive()
            if self._worker is not None:
                log.debug("%s: nobody asks: the parser ends", self.where)
                self._end_worker()
            self.blocks.clear()

    async def _serve(self, job: _Job, nursery: trio.Nursery) -> None:
        try:
            job.answer = await self._answer(job, nursery)
            job.is_answered = True
        except Damaged as error:
            where = f"{self.where}: {error.where}" if error.where else self.where
            job.error = type(error)(where, error.offset, error.reason)
        except BackgateError as error:
            job.error = error
        finally:
            job.ended.set()

    async def _answer(self, job: _Job, nursery: trio.Nursery) -> Any:
        asked = frame(job.request)
        reason, faults = self._deadly.get(asked, ""), 0
        for _ in range(0 if reason else TRIES):
            try:
                return job.check(await self._said(job.request, nursery))
            except (Ended, Garbage) as error:
                reason = str(error)
                faults += not isinstance(error, NotStarted)
                self._end_worker()
                log.warning(
                    "%s: the parser was ended while it was asked for %s: %s",
                    self.where,
                    _words(job.request),
                    reason,
                )
        if faults == TRIES:
            self._deadly[asked] = reason
        kind = Damaged if faults == TRIES or asked in self._deadly else Unparsed
        raise kind("", None, f"the parser fails at {_words(job.request)}: {reason}")

    async def _said(self, request: Request, nursery: trio.Nursery) -> Said:
        worker = self._worker
        if worker is None:
            try:
                worker = await self._start(nursery)
            except BackgateError:
                self._end_worker()  # it knows only a part of what it should
                raise
            except (Ended, Garbage) as error:
                raise NotStarted(str(error)) from error
        if isinstance(request, Open) and self._opened is not None:
            return self._opened
        return await self._asked(worker, request)

    async def _asked(self, worker: Worker, request: Request) -> Said:
        keys = KEYS_PATIENCE * len(self._passphrases)
        patience = PATIENCE + (keys if isinstance(request, Discover) else 0)
        if isinstance(request, Open):
            patience = START_PATIENCE
        self._lost, self._is_search = None, isinstance(request, Discover)
        try:
            said = await worker.ask(request, self._supply, patience)
        except Ended:
            if self._lost is None:
                raise
            self._end_worker()  # what it may still say would be taken for another answer
        if self._lost is not None:
            raise self._lost
        return said

    async def _start(self, nursery: trio.Nursery) -> Worker:
        """Start a worker, which must see the same disks and volumes as those before it."""
        worker = self._worker = self._start_worker()
        log.debug("%s: parser %d starts", self.where, worker.number)
        for number, source in enumerate(self._sources):  # it will ask for these first
            nursery.start_soon(self._begin, number, min(source.size, BLOCK))
        opened = answer_to(await self._asked(worker, self._open()), Opened)
        if len(opened.disks) != len(self._disks) or self._opened not in (None, opened):
            raise Garbage("other disks than there are")
        self._opened = opened
        if self._volumes is not None:
            volumes = self._checked(await self._asked(worker, Discover()))
            if volumes != self._volumes:
                raise Garbage("other volumes than before")
        return worker

    def _checked(self, said: Said) -> Volumes:
        return checked_volumes(answer_to(said, Volumes), len(self._disks))

    async def _begin(self, source: int, length: int) -> None:
        with suppress(StoreError, Damaged):  # whoever wants it is told
            await self.blocks.read(source, 0, length)

    def _open(self) -> Open:
        sizes = [source.size for source in self._sources]
        return Open(sizes, self._disks, self._passphrases)

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    # What the worker asks for.

    async def _supply(self, wanted: Want | WantFile) -> Message:
        try:
            if isinstance(wanted, Want):
                return await self._block(wanted)
            return await self._file(wanted)
        except (StoreError, Damaged) as error:
            if self._is_search and isinstance(error, Damaged):
                return Lost(str(error), is_damage=True)  # the other disks can be read all the same
            self._lost = error
            return Lost(str(error))

    async def _block(self, wanted: Want) -> Message:
        if wanted.source >= len(self._sources):
            raise Ended(f"it wants bytes of source {wanted.source}, which is none")
        if wanted.offset + wanted.length > self._sources[wanted.source].size:
            raise Ended(f"it wants bytes behind the end of source {wanted.source}")
        return Given(await self.blocks.read(wanted.source, wanted.offset, wanted.length))

    async def _file(self, wanted: WantFile) -> Message:
        key = (wanted.disk, wanted.name)
        number = self._files.get(key)
        if number is None:
            source = None
            if wanted.disk < len(self._disks) and len(self._files) < FILES_MAX:
                source = await self._siblings(wanted.disk, wanted.name)
            if source is None:
                return NoFile()
            number = self._files[key] = len(self._sources)
            self._sources.append(source)
        return GivenFile(number, self._sources[number].size)


def _only_root(said: Said) -> Node:
    nodes = checked_nodes(answer_to(said, Nodes), are_named=False).nodes
    if len(nodes) != 1:
        raise Garbage(f"{len(nodes)} roots")
    return nodes[0]


def _words(request: Request) -> str:
    """Return what is asked for, for a person."""
    text = type(request).__name__.lower()
    for name in ("volume", "name", "cursor", "offset", "length"):
        value = getattr(request, name, math.nan)
        if value is not math.nan and value is not None:
            text += f" {name} {value!r:.100}"
    return text

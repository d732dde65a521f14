"""What lies on the disks of one backup, asked of a worker that may die of it.

Requests are served one after another by one task, so whoever asked may go away without harm. A
worker that fails is ended, the log says of what, and another one takes its place; a request that
fails twice is `Damaged`, and so for a while. A worker that nobody asks for a while is ended too.
"""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import trio
from cachetools import TTLCache

from backgate.fs.parser.blocks import BLOCK
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
    Lying,
    Nodes,
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
    Xattrs,
    frame,
)
from backgate.fs.parser.places import Places, idle_for
from backgate.fs.parser.process import PATIENCE, Ended, Killed, NotStarted, Worker, start_worker
from backgate.fs.parser.supplies import Siblings, Supplies
from backgate.fs.parser.waiting import Job, Waiting
from backgate.fs.volume import Node
from backgate.gateway.errors import BackgateError, Damaged, Unreachable
from backgate.gateway.source import Source

TRIES = 2  # workers that a request may cost
DEADLY_MAX = 1000  # requests remembered that cost so many
AHEAD = 16  # sources whose beginning is fetched while a worker starts
DEADLY_FOR = 600.0  # seconds; a machine that was too busy for a request may not be by then
START_PATIENCE = 2 * PATIENCE  # seconds until a worker must have imported what it needs
KEYS_PATIENCE = 60.0  # seconds more that trying a passphrase may take: that is what it is for

log = logging.getLogger(__name__)

Extent: TypeAlias = tuple[int, int, int]  # length, disk or HOLE or ENCODED, offset
Answer = TypeVar("Answer")


class Unparsed(Damaged):
    """No worker could look to the end: what was asked for may be sound, and can be had later."""


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
        places: Places,
        start: Callable[[], Worker] = start_worker,
    ) -> None:
        """`where` is what messages call the backup; `memory` is for blocks, in bytes.

        Its worker needs one of `places`, and gives it to another while nobody asks.
        """
        self.where, self._disks, self._passphrases = where, disks, passphrases
        self._supplies = Supplies(where, len(disks), sources, siblings, memory)
        self.blocks = self._supplies.blocks
        self._start_worker, self._places = start, places
        self._worker: Worker | None = None
        self._opened: Opened | None = None
        self._volumes: Volumes | None = None
        self._deadly: TTLCache[bytes, str] = TTLCache(DEADLY_MAX, DEADLY_FOR)
        self._waiting = Waiting()
        self._is_outdated = False
        self._facts: dict[int, Notes] = {}  # of file systems, as they were first told
        self._confirmed: set[int] = set()  # those of which this worker tells the same
        self._longest = 0.0  # seconds that an answer of the worker took

    @property
    def is_outdated(self) -> bool:
        """True when there are other volumes than those that were told of; it asks no more."""
        return self._is_outdated

    @property
    def sources(self) -> Sequence[Source]:
        """The sources that extents speak of, by number."""
        return self._supplies.sources

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    job = await self._next()
                    self._places.work(self)
                    begun = trio.current_time()
                    await self._serve(job, nursery)
                    self._longest = max(self._longest, trio.current_time() - begun)
                    self._places.rest(self)
        finally:
            self._waiting.close()
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
        return await self._ask(Facts(volume), lambda said: self._told(volume, said))

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
            sizes = [source.size for source in self.sources]
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
        job = Job(request, check)
        self._waiting.add(job)
        try:
            await job.ended.wait()
        finally:
            self._waiting.withdraw(job)
        if isinstance(job.error, BackgateError):
            raise job.error.with_traceback(None)
        if job.error is not None:
            raise job.error
        if not job.is_answered:
            raise BackgateError(f"{self.where}: it is being closed")
        answer: Answer = job.answer
        return answer

    async def _next(self) -> Job:
        while True:
            with trio.move_on_after(idle_for(self._longest)):
                return await self._waiting.next()
            self._give_way()

    def _give_way(self) -> None:
        if self._worker is not None:
            log.debug("%s: nobody asks: the parser ends", self.where)
            self._end_worker()
        self.blocks.clear()

    async def _serve(self, job: Job, nursery: trio.Nursery) -> None:
        before = self._waiting.all()
        try:
            job.answer = await self._answer(job, nursery)
            job.is_answered = True
        except Damaged as error:
            where = f"{self.where}: {error.where}" if error.where else self.where
            job.error = type(error)(where, error.offset, error.reason)
        except Unreachable as error:
            job.error = error
            self._end_all(before, error)
        except BackgateError as error:
            job.error = error
        except BaseException as error:
            self._end_worker()  # it still waits for an answer of ours
            if not isinstance(error, Exception):
                raise
            job.error = error  # for whoever asked, as if he had read himself
        finally:
            job.ended.set()

    def _end_all(self, jobs: Sequence[Job], error: Unreachable) -> None:
        """End those that have waited meanwhile, and so have been as patient with the store."""
        for job in jobs:
            if self._waiting.withdraw(job):
                job.error = Unreachable(str(error), key=error.key)
                job.ended.set()

    async def _answer(self, job: Job, nursery: trio.Nursery) -> Any:
        asked = frame(job.request)
        reason, faults = self._deadly.get(asked, ""), 0
        if reason:
            raise self._failure(Damaged, job, reason)
        for _ in range(TRIES):
            try:
                return job.check(await self._said(job.request, nursery))
            except (Ended, Garbage) as error:
                reason = str(error)
                faults += not isinstance(error, NotStarted | Killed)
                self._end_worker()
                log.warning(
                    "%s: the parser was ended while it was asked for %s: %s",
                    self.where,
                    _words(job.request),
                    reason,
                )
        if faults < TRIES:
            raise self._failure(Unparsed, job, reason)
        self._deadly[asked] = reason
        raise self._failure(Damaged, job, reason)

    def _failure(self, kind: type[Damaged], job: Job, reason: str) -> Damaged:
        return kind("", None, f"the parser fails at {_words(job.request)}: {reason}")

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
        volume = getattr(request, "volume", None)
        if volume in self._facts and volume not in self._confirmed:
            self._told(volume, await self._asked(worker, Facts(volume)))
        return await self._asked(worker, request)

    def _told(self, volume: int, said: Said) -> Notes:
        """Return what is told of a file system, which must be what was told of it before.

        A log that once was replayed and now takes too long, or too much memory, would leave what
        was shown of it so far beside what was there before.
        """
        notes = checked_notes(answer_to(said, Told).notes)
        if self._facts.setdefault(volume, notes) != notes:
            raise NotStarted(f"the file system on volume {volume} is in another state than before")
        self._confirmed.add(volume)
        return notes

    async def _asked(self, worker: Worker, request: Request) -> Said:
        keys = KEYS_PATIENCE * len(self._passphrases)
        patience = PATIENCE + (keys if isinstance(request, Discover) else 0)
        if isinstance(request, Open):
            patience = START_PATIENCE
        self._supplies.begin(is_search=isinstance(request, Discover))
        try:
            said = await worker.ask(request, self._supplies.give, patience)
        except Ended:
            if self._supplies.lost is None:
                raise
            self._end_worker()  # what it may still say would be taken for another answer
        if self._supplies.lost is not None:
            raise self._supplies.lost
        return said

    async def _start(self, nursery: trio.Nursery) -> Worker:
        """Start a worker, which must see the same disks and volumes as those before it."""
        await self._places.enter(self, self._give_way)
        worker = self._worker = self._start_worker()
        log.debug("%s: parser %d starts", self.where, worker.number)
        for number, source in enumerate(self.sources[:AHEAD]):  # it will ask for these first
            nursery.start_soon(self._begin, number, min(source.size, BLOCK))
        opened = answer_to(await self._asked(worker, self._open()), Opened)
        if len(opened.disks) != len(self._disks) or self._opened not in (None, opened):
            raise Garbage("other disks than there are")
        self._opened = opened
        if self._volumes is not None:
            volumes = self._checked(await self._asked(worker, Discover()))
            if volumes != self._volumes:  # one of both times something has kept it, which passes
                self._is_outdated = True
                raise Garbage("other volumes than before")
        return worker

    def _checked(self, said: Said) -> Volumes:
        return checked_volumes(answer_to(said, Volumes), len(self._disks))

    async def _begin(self, source: int, length: int) -> None:
        with suppress(Exception):  # whoever wants it is told
            await self.blocks.read(source, 0, length)

    def _open(self) -> Open:
        sizes = [source.size for source in self.sources]
        return Open(sizes, self._disks, self._passphrases)

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker, self._longest = None, 0.0
            self._confirmed.clear()
        self._places.leave(self)


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

"""Open a spool, and take up what an earlier run of the gateway left in it.

What a tool was told is safe goes on: it is staged again, or stored. What was neither closed nor
synchronized is kept and listed, and never stored by itself. Uploads that nobody will commit, hidden
objects that nobody needs, and renames that were interrupted are ended. Doing all this twice does no
harm.
"""

import fcntl
import logging
import os
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import trio

from backgate.gateway.aside import Asides
from backgate.gateway.backlog import RETRY_AFTER, LeftOver
from backgate.gateway.claims import Claims
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.copies import Copies
from backgate.gateway.deletions import Deletions
from backgate.gateway.errors import BackgateError, Unreachable, UsageError
from backgate.gateway.extents import Ranges
from backgate.gateway.journal import Journal
from backgate.gateway.leaving import Leaving
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.moves import Moves
from backgate.gateway.parts import FIRST_PART, PartPlan
from backgate.gateway.pending import FILES, boot_id, is_kept, left_over, local_files
from backgate.gateway.records import Beginning, Gone, Header, Move, Spooled
from backgate.gateway.renames import Renames
from backgate.gateway.room import Room
from backgate.gateway.shelf import Shelf
from backgate.gateway.spool import Spool
from backgate.gateway.spool_parts import Parts
from backgate.gateway.spooled import Sources, SpooledFile
from backgate.gateway.staged import StagedNames
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import Taking, purpose_of
from backgate.gateway.turns import Turns
from backgate.gateway.upload import Uploader
from backgate.gateway.uploads import Uploads

LOCK = "lock"
PRIVATE = 0o700

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_spool(
    directory: Path,
    config: RepositoryConfig,
    store: ObjectStore,
    metadata: Metadata,
    sources: Sources,
    *,
    first_part: int = FIRST_PART,
) -> AsyncIterator[Spool]:
    """Open the spool in `directory`, for this process alone; `sources` read objects of the store.

    What was acknowledged and is not stored is being stored when the context opens. When it ends,
    what was not stored stays for the next start. Raises `UsageError` when another process has it
    open.
    """
    (directory / FILES).mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    with _locked(directory / LOCK):
        journal = Journal(directory)
        try:
            async with trio.open_nursery() as nursery:
                parts = _parts(
                    directory, config, store, metadata, sources, journal, nursery, first_part
                )
                last = max([*local_files(directory / FILES), *journal.state.files], default=0)
                spool = Spool(
                    parts,
                    last,
                    is_lazy=config.durability == "journal",
                    was_lazy=journal.state.header.is_lazy,
                )
                parts.taking.warn()
                await _Recovery(parts, spool).take_up()
                nursery.start_soon(spool.keep_trying)
                try:
                    yield spool
                finally:
                    spool.close()
                    nursery.cancel_scope.cancel()
        finally:
            journal.close()


def _parts(
    directory: Path,
    config: RepositoryConfig,
    store: ObjectStore,
    metadata: Metadata,
    sources: Sources,
    journal: Journal,
    nursery: trio.Nursery,
    first_part: int,
) -> Parts:
    gateway = journal.state.header.gateway or uuid.uuid4().hex
    room, shelf = Room(config.spool), Shelf()
    deletions = Deletions(store, nursery)
    asides = Asides(store, journal, deletions, nursery, gateway)
    plan = PartPlan(store.abilities.limits, first_part)
    uploads = Uploads(store, journal, nursery)
    copies = Copies(store, uploads, plan)
    renewing = copies if config.kind == "mirror" else None
    uploader = Uploader(store, journal, uploads, asides, nursery, plan, room, renewing, gateway)
    claims = Claims()
    taking = Taking(config, store, metadata, claims, gateway)
    moves = Moves(journal, taking, nursery)
    turns = Turns(store, taking, moves, config.name)
    return Parts(
        directory=directory,
        gateway=gateway,
        store=store,
        metadata=metadata,
        sources=sources,
        staged=StagedNames(config.staged),
        journal=journal,
        nursery=nursery,
        claims=claims,
        deletions=deletions,
        asides=asides,
        taking=taking,
        turns=turns,
        moves=moves,
        renames=Renames(store, metadata, journal, copies, taking, moves, turns),
        room=room,
        shelf=shelf,
        uploads=uploads,
        uploader=uploader,
        leaving=Leaving(room, shelf, uploader, nursery),
    )


class _Recovery:
    """What is done once, before anybody may use the spool."""

    def __init__(self, parts: Parts, spool: Spool) -> None:
        self._parts, self._spool = parts, spool
        self._journal = parts.journal
        self._is_same_boot = self._journal.state.header.boot == boot_id()

    async def take_up(self) -> None:
        """Take up files, and end in the background what else was begun."""
        state = self._journal.state
        uploads, asides, moves = dict(state.uploads), set(state.asides), list(state.moves.values())
        beginnings = list(state.beginnings.values())
        taken: list[Spooled] = []
        paths = local_files(self._parts.directory / FILES)
        needed: set[str] = set()
        for number, record in list(state.files.items()):
            path = paths.pop(number, None)
            if record.is_taken and not is_kept(record, is_same_boot=self._is_same_boot):
                taken.append(record)
            if self._take_up(record, path):
                needed |= {held.key for held in record.held}
        for number, path in paths.items():
            if self._is_same_boot and not self._journal.torn:
                path.unlink()  # every file is known before it holds anything: this was unlinked
                continue
            self._leave(LeftOver(left_over(path, None), path, None, frozenset()), number)
        is_lazy = self._spool.is_lazy or (state.header.is_lazy and len(self._parts.shelf) > 0)
        self._journal.append(Header(self._parts.gateway, boot_id(), is_lazy))
        await self._journal.synchronize()
        self._parts.asides.remove(asides - needed)
        await self._parts.nursery.start(self._end, beginnings, uploads, moves, taken)

    async def _end(
        self,
        beginnings: Iterable[Beginning],
        uploads: Mapping[str, str],
        moves: Iterable[Move],
        taken: Iterable[Spooled],
        task_status: trio.TaskStatus[None],
    ) -> None:
        """End what was begun in the store; names that are being renamed are claimed at once."""
        async with trio.open_nursery() as nursery:
            for upload, key in uploads.items():
                nursery.start_soon(self._parts.uploads.abort, key, upload)
            for beginning in beginnings:
                nursery.start_soon(self._parts.uploads.find, beginning)
            for record in taken:
                nursery.start_soon(self._give_back, record)
            for move in moves:
                await nursery.start(self._finish, move)
            task_status.started()
        self._spool.is_recovered.set()

    def _take_up(self, record: Spooled, path: Path | None) -> bool:
        """Take up one file; False when there is nothing of it any more."""
        number = record.number
        if is_kept(record, is_same_boot=self._is_same_boot):
            if path is None and record.local:
                self._journal.append(Gone(number))  # only what is stored or discarded is deleted
                return False
            self._spool.adopt(self._file(record))
            log.info("%r was not stored before: going on with it", record.key)
            return True
        if path is None and not record.held:
            if not record.is_taken:
                self._journal.append(Gone(number))
            return False
        if record.is_closed:  # before the machine went down: not to be trusted after another boot
            self._journal.append(msgspec.structs.replace(record, is_closed=False))
        path = path or self._parts.directory / FILES / str(number)
        path.touch(0o600)
        hidden = frozenset(held.key for held in record.held)
        file = self._unsynced(record, path)
        self._leave(LeftOver(left_over(path, record), path, file, hidden), number)
        return True

    async def _give_back(self, record: Spooled) -> None:
        """Let others have the name of a file that was created exclusively and never closed."""
        purpose = purpose_of(record.number, record.since_ns)
        await self._parts.taking.surely_give_back(record.key, purpose)
        if record.number in self._spool.left_over:
            self._journal.append(msgspec.structs.replace(record, is_taken=False, is_new=True))
        elif all(file.number != record.number for file in self._spool.shelf):
            self._journal.append(Gone(record.number))  # not even a byte of it is here

    def _leave(self, left: LeftOver, number: int) -> None:
        self._spool.left_over[number] = left
        log.warning(
            "%r: %s: it is kept, not stored: `backgate spool list` shows it, `retry` stores it",
            left.pending.key,
            left.pending.reason,
        )

    def _unsynced(self, record: Spooled, path: Path) -> SpooledFile | None:
        """Return a file that was written from nothing, as far as the disk has it."""
        if record.size:
            return None  # which of its bytes were overwritten, nobody knows
        size = max([path.stat().st_size, *(held.stop for held in record.held)])
        local = Ranges([(0, path.stat().st_size)])
        for held in record.held:
            local.remove(held.start, held.stop)
        return self._file(msgspec.structs.replace(record, size=size, local=list(local)))

    def _file(self, record: Spooled) -> SpooledFile:
        file = self._spool.made(record.number, record.key, record.attributes)
        file.recover(record)
        file.rest()
        return file

    async def _finish(self, move: Move, task_status: trio.TaskStatus[None]) -> None:
        """Finish a rename; whoever asks for what it concerns waits for it."""
        if not move.is_taken:
            task_status.started()
            await self._parts.moves.give_up(move)
            return
        async with self._parts.claims.claim(move.source, move.target):
            task_status.started()
            error = await self._finished(move)
            if error is None:
                self._spool.moved_below(move.source, move.target)
                log.info("%r was renamed to %r: finished", move.source, move.target)
            else:
                log.error("%r could not be renamed to %r: %s", move.source, move.target, error)
        if error is not None:
            await self._end_in_vain(move)  # for which the name must not be claimed

    async def _end_in_vain(self, move: Move) -> None:
        """Note that a rename ends as it is, and give its name back if no original has gone yet."""
        last = self._journal.state.moves.get(move.number, move)
        if last.is_copied:
            self._parts.moves.ended(move)
            return
        self._journal.append(msgspec.structs.replace(last, is_taken=False))
        await self._parts.moves.give_up(last)

    async def _finished(self, move: Move) -> BackgateError | OSError | None:
        while True:
            last = self._journal.state.moves.get(move.number, move)
            try:
                await self._parts.renames.finish(last, self._spool.moved)
            except Unreachable:
                await trio.sleep(RETRY_AFTER)
            except (BackgateError, OSError) as error:
                return error
            else:
                return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{path.parent}: another gateway is writing here: `backgate status` shows where it "
                "is mounted; use that mount, unmount it first, or mount with --read-only"
            ) from None
        yield
    finally:
        os.close(descriptor)

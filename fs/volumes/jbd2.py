"""Replay the journal of an ext3 or ext4 file system, in memory, over the device.

The journal holds copies of whole blocks, by transaction. What a committed transaction copied, and
none that followed revoked, is read from its copy: nothing but the blocks between the copies has to
be read beforehand, and a copy is checked when it is asked for. Fast commits have no copies of
blocks: what they change is told beside the device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes import replay
from backgate.fs.volumes.checksums import big_endian_crc32
from backgate.fs.volumes.devices import Overlay
from backgate.fs.volumes.ext_changes import Changes
from backgate.fs.volumes.fast_commits import FastCommits
from backgate.fs.volumes.jbd2_format import (
    COMMIT,
    DESCRIPTOR,
    MAGIC,
    REVOKE,
    JournalFormat,
    Tag,
    journal_format,
)
from backgate.fs.volumes.jbd2_place import (
    JournalPlace,
    has_journal,
    journal_place,
    needs_recovery,
    proves_inodes,
    superblock,
    was_unmounted,
)
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.replay import Replay, counted
from backgate.gateway.errors import Damaged

_HEADER = Struct(">III")
_UNSURE = "which prove nothing without checksums of metadata, or with inline data"


class Copy(NamedTuple):
    """A block in the journal that stands for one of the file system."""

    at: int  # block of the device
    tag: Tag
    sequence: int  # of its transaction


@dataclass(slots=True)
class _Transaction:
    """What has been read of one transaction."""

    number: int  # from 0 for the first in the journal: sequence numbers begin again after 2**32
    copies: list[Copy] = field(default_factory=list)
    revoked: list[int] = field(default_factory=list)
    crc: int = 0xFFFF_FFFF  # of all its blocks but the last, where the commit block says it
    is_doubtful: bool = False  # a descriptor's checksum is wrong: damaged, or from an older round


def replay_journal(device: Device) -> Replay:
    """Return `device`, an ext2, ext3 or ext4 file system, as it is after its recovery.

    A journal that cannot be read leaves the device as it is, and the notes say why.
    """
    start = superblock(device)
    if start is None or not has_journal(start):
        return replay.clean(device) if start is None or was_unmounted(start) else _without(device)
    if not needs_recovery(start):
        return replay.clean(device)
    try:
        place = journal_place(device, start)
        layout = journal_format(_block(device, place, 0), place)
        if not layout.start:
            return replay.clean(device)
        return _replay(device, place, layout, proves_inodes(start))
    except Damaged as error:
        return replay.unreplayed(device, str(error))
    except MemoryError:
        return replay.unreplayed(device, "it takes too much memory")


def _without(device: Device) -> Replay:
    said = f"there is none, and {replay.MISSING} or wrong"
    return Replay(device, {replay.STATE: replay.DIRTY, replay.JOURNAL: said})


def _replay(device: Device, place: JournalPlace, layout: JournalFormat, is_proof: bool) -> Replay:
    scan = _Scan(device, place, layout)
    transactions = list(scan.transactions())
    last_revoked: dict[int, int] = {}
    for transaction in transactions:
        last_revoked |= dict.fromkeys(transaction.revoked, transaction.number)
    copies = {
        copy.tag.block: copy
        for transaction in transactions
        for copy in transaction.copies
        if transaction.number > last_revoked.get(copy.tag.block, -1)
    }
    words = [counted(len(transactions), "transaction"), counted(len(copies), "block")]
    words += [counted(len(last_revoked), "block") + " revoked"] if last_revoked else []
    words += [scan.problem] if scan.problem else []
    changes, more_words = (None, []) if scan.problem else scan.fast_commits(is_proof)
    blocks = _Copies(device, layout, copies)
    above = Overlay(device, layout.block_size, blocks) if copies else device
    return replay.replayed(above, *words, *more_words)._replace(changes=changes)


class _Scan:
    """One pass over the part of the journal that has not been written back."""

    def __init__(self, device: Device, place: JournalPlace, layout: JournalFormat) -> None:
        self._device, self._place, self._layout = device, place, layout
        self._at = layout.start
        self._left = layout.stop - layout.first  # blocks until the pass would meet its own start
        self._number = 0  # of the transaction being read
        self._committed = 0  # time of the last commit, in ns
        self.problem = ""  # why the pass ended before its time

    @property
    def _sequence(self) -> int:
        return (self._layout.sequence + self._number) & 0xFFFF_FFFF

    def transactions(self) -> Iterator[_Transaction]:
        """Give the committed transactions, oldest first, up to the first that is not whole."""
        current = _Transaction(0)
        while self._left > 0:
            block = self._next()
            magic, kind, sequence = _HEADER.unpack_from(block)
            if magic != MAGIC or sequence != self._sequence:
                return
            if kind == DESCRIPTOR:
                self._describe(block, current)
            elif kind == REVOKE:
                current.is_doubtful |= not self._layout.tail_is_right(block)
                current.revoked += [] if current.is_doubtful else self._layout.revoked(block)
            elif kind == COMMIT:
                if not self._commits(block, current):
                    return
                yield current
                self._number += 1
                current = _Transaction(self._number)
            else:
                return

    def fast_commits(self, is_proof: bool) -> tuple[Changes | None, list[str]]:
        """Return what was committed on top of the last transaction, and what to say of it."""
        blocks = (_block(self._device, self._place, at) for at in self._layout.fast_commits)
        fast, changes = FastCommits(blocks, self._sequence), Changes()
        for commit in fast.commits():
            changes.add(commit)
        words = [counted(changes.commits, "fast commit")] if changes.commits else []
        if words and not is_proof:
            return None, [f"but not {words[0]}, {_UNSURE}: {replay.MISSING}"]
        if fast.problem:
            lost = f"but not the fast commits after that, of which {fast.problem}"
            words += [f"{lost}: {replay.MISSING}"]
        return (changes if changes.commits else None), words

    def _next(self) -> bytes:
        return _block(self._device, self._place, self._skip())

    def _skip(self) -> int:
        number, self._at = self._at, self._at + 1
        if self._at == self._layout.stop:
            self._at = self._layout.first
        self._left -= 1
        return number

    def _describe(self, block: bytes, into: _Transaction) -> None:
        layout = self._layout
        into.is_doubtful |= not layout.tail_is_right(block)
        if layout.sums_transactions:
            into.crc = big_endian_crc32(block, into.crc)
        for tag in layout.tags(block):
            if (tag.block + 1) * layout.block_size > self._device.size and not into.is_doubtful:
                raise Damaged("journal", None, f"names block {tag.block}, which is not there")
            copy = Copy(self._place.block(self._skip()), tag, self._sequence)
            into.copies.append(copy)
            if layout.sums_transactions:
                data = read_exactly(
                    self._device, copy.at * layout.block_size, layout.block_size, "journal"
                )
                into.crc = big_endian_crc32(data, into.crc)

    def _commits(self, block: bytes, transaction: _Transaction) -> bool:
        layout = self._layout
        committed = layout.committed_ns(block)
        is_whole = not transaction.is_doubtful and layout.commit_is_right(block, transaction.crc)
        # The clock tells a damaged transaction from the remains of an older round.
        if not is_whole and committed >= self._committed and not layout.commits_early:
            reason = f"up to transaction {self._sequence}, which is damaged"
            self.problem = f"{reason}: {replay.MISSING}"
        self._committed = committed
        return is_whole


def _block(device: Device, place: JournalPlace, number: int) -> bytes:
    size = place.block_size
    return read_exactly(device, place.block(number) * size, size, "journal")


class _Copies(Mapping[int, bytes]):
    """The blocks that the journal holds copies of."""

    def __init__(self, device: Device, layout: JournalFormat, copies: dict[int, Copy]) -> None:
        self._device, self._layout, self._copies = device, layout, copies

    def __getitem__(self, block: int) -> bytes:
        copy, size = self._copies[block], self._layout.block_size
        data = read_exactly(self._device, copy.at * size, size, "journal")
        if not self._layout.copy_is_right(data, copy.tag, copy.sequence):
            raise Damaged("journal", copy.at * size, f"the copy of block {block} is damaged")
        return MAGIC.to_bytes(4, "big") + data[4:] if copy.tag.is_escaped else data

    def __iter__(self) -> Iterator[int]:
        return iter(self._copies)

    def __len__(self) -> int:
        return len(self._copies)

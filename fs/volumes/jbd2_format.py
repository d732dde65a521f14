"""The blocks of an ext3 or ext4 journal (jbd2), as its features have them."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, unpack_from
from typing import NamedTuple

from backgate.fs.volumes.checksums import CRC32C_BYTES, plain_crc32c
from backgate.fs.volumes.jbd2_place import JournalPlace
from backgate.gateway.errors import Damaged
from backgate.gateway.units import SECOND_NS

MAGIC = 0xC03B3998
DESCRIPTOR, COMMIT, REVOKE = 1, 2, 5  # kinds of blocks
_SUPERBLOCKS = (3, 4)  # kinds: before and with features
_LOG_MAX = 1 << 20  # blocks: 4 GiB at 4 KiB, the largest journal in use

_SUMS_TRANSACTIONS = 0x1  # compatible feature
_WITH_64BIT, _COMMITS_EARLY, _CHECKSUMS_2, _CHECKSUMS_3, _FAST_COMMITS = 0x2, 0x4, 0x8, 0x10, 0x20
_KNOWN = 0x3F  # incompatible features; 1 is that there are revoke blocks
_CRC32, _CRC32C = 1, 4  # kinds of checksums
_FAST_COMMIT_BLOCKS = 256  # unless the superblock says otherwise

_HEADER_SIZE, _REVOKES_AT, _UUID_SIZE = 12, 16, 16  # bytes
_SUPER_CHECKSUM_AT, _COMMIT_CHECKSUM_AT = 252, 16
_SUPER_SIZE, _COMMIT_SIZE = 1024, 64  # bytes
_ESCAPED, _SAME_UUID, _LAST = 1, 2, 8  # flags of a tag
_TAG, _TAG_3, _WORD = Struct(">IHH"), Struct(">IIII"), Struct(">I")


class Tag(NamedTuple):
    """What a descriptor says of one of the blocks that follow it."""

    block: int  # of the file system
    is_escaped: bool  # its first four bytes were the journal's own mark
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFormat:
    """What the journal's superblock says, and how its other blocks are read."""

    block_size: int  # bytes
    first: int  # block of the journal with which each round begins
    stop: int  # the block before which it ends
    fast_commits: range  # the blocks in which they lie
    start: int  # where the oldest transaction begins; 0: there is none
    sequence: int  # number of that transaction
    seed: int  # of all checksums
    tag_size: int  # bytes
    tag_checksum_mask: int  # the bits of a copy's checksum that are kept; 0: none
    is_wide: bool  # block numbers have 64 bits
    sums_transactions: bool  # the commit block has a checksum of all others
    commits_early: bool  # the commit block may be there before the others

    def tail_is_right(self, block: bytes) -> bool:
        """Check the checksum at the end of a descriptor or revoke block."""
        if not self.tag_checksum_mask:
            return True
        crc = plain_crc32c(block[:-CRC32C_BYTES] + bytes(CRC32C_BYTES), self.seed)
        return bool(crc == _WORD.unpack(block[-CRC32C_BYTES:])[0])

    def commit_is_right(self, block: bytes, transaction_crc: int) -> bool:
        """Check a commit block, and by it the transaction whose blocks have that checksum."""
        stop = _COMMIT_CHECKSUM_AT + CRC32C_BYTES
        (found,) = _WORD.unpack_from(block, _COMMIT_CHECKSUM_AT)
        if self.tag_checksum_mask:
            zeroed = block[:_COMMIT_CHECKSUM_AT] + bytes(CRC32C_BYTES) + block[stop:]
            # Behind the header are zeros, or what was there before: a machine may stop in between.
            torn = zeroed[:_COMMIT_SIZE].ljust(len(block), b"\0")
            return found in (plain_crc32c(zeroed, self.seed), plain_crc32c(torn, self.seed))
        kind, size = block[12], block[13]
        is_unused = (kind, size, found) == (0, 0, 0)
        is_right = (kind, size, found) == (_CRC32, CRC32C_BYTES, transaction_crc)
        return is_unused or is_right or not self.sums_transactions

    def copy_is_right(self, data: bytes, tag: Tag, sequence: int) -> bool:
        """Check the copy of a block by its tag, in transaction `sequence`."""
        if not self.tag_checksum_mask:
            return True
        crc = plain_crc32c(data, plain_crc32c(_WORD.pack(sequence), self.seed))
        return not (crc ^ tag.checksum) & self.tag_checksum_mask

    def committed_ns(self, block: bytes) -> int:
        """Return when a transaction was committed, by the clock of that machine."""
        seconds, nanoseconds = unpack_from(">QI", block, 48)
        return int(seconds * SECOND_NS + nanoseconds)

    def tags(self, block: bytes) -> Iterator[Tag]:
        """Give the tags of a descriptor block."""
        at, flags = _HEADER_SIZE, 0
        stop = len(block) - (CRC32C_BYTES if self.tag_checksum_mask else 0)
        while not flags & _LAST and at + self.tag_size <= stop:
            if self.tag_size == _TAG_3.size:
                low, flags, high, checksum = _TAG_3.unpack_from(block, at)
            else:
                low, checksum, flags = _TAG.unpack_from(block, at)
                high = _WORD.unpack_from(block, at + _TAG.size)[0] if self.is_wide else 0
            number = (high << 32 if self.is_wide else 0) | low
            yield Tag(number, bool(flags & _ESCAPED), checksum)
            at += self.tag_size + (0 if flags & _SAME_UUID else _UUID_SIZE)

    def revoked(self, block: bytes) -> list[int]:
        """Return the blocks whose older copies a revoke block takes back."""
        stop = _WORD.unpack_from(block, _HEADER_SIZE)[0]
        if not _REVOKES_AT <= stop <= len(block):
            raise Damaged("journal", None, f"a revoke block of {stop} bytes")
        width = 8 if self.is_wide else 4
        count = (stop - _REVOKES_AT) // width
        return list(unpack_from(f">{count}{'Q' if self.is_wide else 'I'}", block, _REVOKES_AT))


def journal_format(block: bytes, place: JournalPlace) -> JournalFormat:
    """Read the journal's superblock, its first block; `Damaged` where it cannot be."""
    magic, kind, _, block_size, count, first, sequence, start = unpack_from(">8I", block)
    compatible, incompatible = unpack_from(">II", block, 36) if kind == _SUPERBLOCKS[1] else (0, 0)
    if magic != MAGIC or kind not in _SUPERBLOCKS or block_size != place.block_size:
        raise Damaged("journal", None, "has no superblock")
    if incompatible & ~_KNOWN:
        raise Damaged("journal", None, f"features {incompatible & ~_KNOWN:#x} are not supported")
    checksums_3, checksums_2 = bool(incompatible & _CHECKSUMS_3), bool(incompatible & _CHECKSUMS_2)
    if checksums_2 or checksums_3:
        _check(block)
    stop, has_fast_commits = count, bool(incompatible & _FAST_COMMITS)
    if has_fast_commits:
        stop -= _WORD.unpack_from(block, 84)[0] or _FAST_COMMIT_BLOCKS
    if not (1 <= first < stop and count <= min(place.count, _LOG_MAX)) or (
        start and not first <= start < stop
    ):
        raise Damaged("journal", None, f"said to have blocks {first} to {stop}, used from {start}")
    is_wide = bool(incompatible & _WITH_64BIT)
    narrow = _TAG.size + (4 if is_wide else 0) + (2 if checksums_2 else 0)
    return JournalFormat(
        block_size=block_size,
        first=first,
        stop=stop,
        fast_commits=range(stop + 1, count if has_fast_commits else 0),
        start=start,
        sequence=sequence,
        seed=plain_crc32c(block[48:64]),
        tag_size=_TAG_3.size if checksums_3 else narrow,
        tag_checksum_mask=0xFFFF_FFFF if checksums_3 else 0xFFFF if checksums_2 else 0,
        is_wide=is_wide,
        sums_transactions=bool(compatible & _SUMS_TRANSACTIONS),
        commits_early=bool(incompatible & _COMMITS_EARLY),
    )


def _check(block: bytes) -> None:
    at, stop = _SUPER_CHECKSUM_AT, _SUPER_CHECKSUM_AT + CRC32C_BYTES
    crc = plain_crc32c(block[:at] + bytes(CRC32C_BYTES) + block[stop:_SUPER_SIZE])
    if block[80] != _CRC32C or crc != _WORD.unpack_from(block, at)[0]:
        raise Damaged("journal", None, "the checksum of its superblock is wrong")

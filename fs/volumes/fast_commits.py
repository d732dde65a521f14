"""The fast commits of ext4: what changed after the last transaction of its journal.

Behind the transactions they tell, in tags, which names, inodes and ranges of blocks have become
what. A tail with the checksum of its tags ends each commit, and what has no such tail never was.
"""

from collections.abc import Iterable, Iterator
from struct import Struct, unpack_from
from typing import NamedTuple

from backgate.fs.volumes.checksums import plain_crc32c

CHANGES_MAX = 1 << 19  # in all commits: many times what fits in an area of the usual size

ADD_RANGE, DELETE_RANGE, CREATE, LINK, UNLINK, INODE, PADDING, TAIL, HEAD = range(1, 10)  # tags
_CHANGES = (ADD_RANGE, DELETE_RANGE, CREATE, LINK, UNLINK, INODE)
_LONGEST = 0xFFFF  # bytes of a tag's value
_LENGTHS = {  # of the values; those of other tags are not known
    ADD_RANGE: range(16, 17),
    DELETE_RANGE: range(12, 13),
    CREATE: range(9, 8 + 255 + 1),
    LINK: range(9, 8 + 255 + 1),
    UNLINK: range(9, 8 + 255 + 1),
    INODE: range(4 + 128, _LONGEST + 1),
    PADDING: range(_LONGEST + 1),
    TAIL: range(8, _LONGEST + 1),
    HEAD: range(8, 9),
}
_TAG, _PAIR = Struct("<HH"), Struct("<II")
_SUMMED_OF_TAIL = 8  # bytes: tag, length and transaction
_LONGEST_EXTENT = 0x8000  # blocks; a longer one is allocated, but has not been written to


class Named(NamedTuple):
    """A name that an inode got (CREATE, LINK) or lost (UNLINK)."""

    what: int
    directory: int  # inode
    inode: int
    name: bytes


class Stored(NamedTuple):
    """What an inode has become: its bytes, up to where attributes may be."""

    inode: int
    head: bytes


UNWRITTEN, HOLE = -1, -2  # both read as zeros; only the first takes space


class Mapped(NamedTuple):
    """Where a range of a file now lies."""

    inode: int
    first: int  # block of the file
    length: int  # blocks
    block: int  # of the file system, or UNWRITTEN or HOLE


Change = Named | Stored | Mapped


class FastCommits:
    """One pass over the `blocks` in which the commits on top of the last transaction would be.

    They carry the number of the `transaction` that would have followed.
    """

    def __init__(self, blocks: Iterable[bytes], transaction: int) -> None:
        self._blocks, self._transaction = blocks, transaction
        self._crc = self._count = 0
        self._has_lost = False  # some of it made no sense; a tail of ours behind it: it is damaged
        self.problem = ""  # why the pass ended before its time

    def commits(self) -> Iterator[list[Change]]:
        """Give what each commit changes, oldest first, up to the first that is not whole."""
        changes: list[Change] = []
        for tag, whole in self._tags():
            if tag in (HEAD, TAIL) and not self._is_ours(tag, whole):
                if self._has_lost:
                    return
                self._has_lost = True
            elif tag == TAIL:
                if not self._is_whole(whole):
                    return
                yield changes
                changes, self._crc = [], 0
                continue
            elif tag in _CHANGES:
                changes.append(_change(tag, whole))
                self._count += 1
            self._crc = plain_crc32c(whole, self._crc)
            if self._count > CHANGES_MAX:
                self.problem = f"there are more than {CHANGES_MAX} changes"
            if self.problem:
                return

    def _tags(self) -> Iterator[tuple[int, bytes]]:
        """Give the tags of all blocks, each with its number; the first of all is a head."""
        has_begun = False
        for block in self._blocks:
            at = 0
            while at + _TAG.size <= len(block):
                tag, length = _TAG.unpack_from(block, at)
                stop = at + _TAG.size + length
                if stop > len(block) or length not in _LENGTHS.get(tag, ()):
                    break
                if not has_begun and tag != HEAD:
                    break
                has_begun = True
                yield tag, block[at:stop]
                at = stop
            else:
                continue
            if self._has_lost or not has_begun:
                return
            self._has_lost = True

    def _is_ours(self, tag: int, whole: bytes) -> bool:
        """Tell whether a head or tail is of our transaction, and not left by an older one."""
        first, second = _PAIR.unpack_from(whole, _TAG.size)
        if tag == TAIL:
            return bool(first == self._transaction)
        if second == self._transaction and first:
            self.problem = f"the features {first:#x} are not supported"
        return bool(second == self._transaction)

    def _is_whole(self, tail: bytes) -> bool:
        stored = _PAIR.unpack_from(tail, _TAG.size)[1]
        if self._has_lost or plain_crc32c(tail[:_SUMMED_OF_TAIL], self._crc) != stored:
            self.problem = "one is damaged"
        return not self.problem


def _change(tag: int, whole: bytes) -> Change:
    at = _TAG.size
    if tag == INODE:
        return Stored(unpack_from("<I", whole, at)[0], whole[at + 4 :])
    if tag == ADD_RANGE:
        inode, first, length, high, low = unpack_from("<IIHHI", whole, at)
        if length > _LONGEST_EXTENT:
            return Mapped(inode, first, length - _LONGEST_EXTENT, UNWRITTEN)
        return Mapped(inode, first, length, high << 32 | low)
    first, second = _PAIR.unpack_from(whole, at)
    at += _PAIR.size
    if tag == DELETE_RANGE:
        return Mapped(first, second, unpack_from("<I", whole, at)[0], HOLE)
    return Named(tag, first, second, whole[at:])

"""A disk out of a chain of images: each byte from the youngest image that has it, else a zero.

Disks can grow: an older image may be shorter. When what an image is made of is suddenly another, or
gone (the backup tool is merging it into its parent just now), the chain is resolved once more, and
the read made again.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from backgate.fs.disk import Member
from backgate.fs.nurseries import open_nursery
from backgate.gateway.errors import Damaged, NotFound, Replaced
from backgate.gateway.source import Data

Resolve = Callable[[str], Awaitable[Sequence[Member]]]  # with the key of what is missing

MISSES_MAX = 32  # objects that one read may miss, one after another
CHANGES_MAX = 8  # times that one of them may be another; a file is merged into in place

log = logging.getLogger(__name__)


class Chain:
    """A `Disk` made of `members`, the youngest first; `resolve` finds them anew."""

    def __init__(
        self,
        members: Sequence[Member],
        resolve: Resolve,
        allocated: int | None,
        notes: Mapping[str, str],
    ) -> None:
        self.where, self.size = members[0].where, members[0].size
        self.allocated, self.notes = allocated, notes
        self._members, self._resolve = members, resolve
        self._resolving = trio.Lock()

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset`, fewer only where the disk ends.

        Raises `Damaged`, and `StoreError` when the bytes cannot be had before the deadline.
        """
        stop = min(offset + length, self.size)
        if offset >= stop:
            await trio.lowlevel.checkpoint()
            return b""
        missed = Counter[str]()
        while True:
            members = self._members
            try:
                data = await _read(members, 0, offset, stop)
            except (NotFound, Replaced) as error:
                key = error.key or self.where
                most = CHANGES_MAX if isinstance(error, Replaced) else 1
                if missed[key] >= most or missed.total() == MISSES_MAX:
                    text = f"a part of the disk is gone, or changes all the time: {error}"
                    raise Damaged(key, None, text) from error
                missed[key] += 1
                log.info("%s: looking for its images again: %s", self.where, error)
                await self._anew(members, key)
            else:
                if len(data) != stop - offset:
                    raise Damaged(self.where, offset, f"{len(data)} bytes of {stop - offset}")
                return data

    async def _anew(self, old: Sequence[Member], missing: str) -> None:
        """Find the members as they are now, by one for all who miss something."""
        async with self._resolving:
            if self._members is old:
                found = await self._resolve(missing)
                if found[0].size != self.size:
                    raise Damaged(self.where, None, "it has become a disk of another size")
                self._members = found


async def _read(members: Sequence[Member], number: int, start: int, stop: int) -> Data:
    """Return the bytes [start, stop) out of the members from `number` on."""
    found: dict[int, Data] = {}

    async def fetch(member: int, begin: int, end: int) -> None:
        for piece in await members[member].read(begin, end - begin):
            data = piece.data
            if data is None:
                data = await _read(members, member + 1, piece.start, piece.stop)
            found[piece.start] = data

    async with open_nursery() as nursery:
        for begin, end, member in await _plan(members, number, start, stop):
            if member == len(members):
                found[begin] = bytes(end - begin)
            else:  # always a task of its own: a chain may be longer than the stack is deep
                nursery.start_soon(fetch, member, begin, end)
    pieces = [found[at] for at in sorted(found)]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _plan(
    members: Sequence[Member], number: int, start: int, stop: int
) -> list[tuple[int, int, int]]:
    """Return (start, stop, member) for a range; the member behind the last has zeros."""
    plan: list[tuple[int, int, int]] = []
    wanted = [(start, stop)]
    while wanted:
        if number == len(members):
            plan += [(begin, end, number) for begin, end in wanted]
            break
        member, left = members[number], list[tuple[int, int]]()
        for begin, end in wanted:
            inside = min(end, member.size)
            if begin < inside:
                for first, last, has in await member.extents(begin, inside - begin):
                    if has:
                        plan.append((first, last, number))
                    else:
                        left.append((first, last))
            if inside < end:  # the disk was shorter then
                plan.append((max(begin, inside), end, len(members)))
        wanted, number = left, number + 1
    return plan

"""Where a chunk of a RAID lies: the arithmetic that Linux' MD and device mapper share.

Everything counts in chunks: of the array on one side, of each member on the other. Names and
formulas are those of md(4); the tests hold each against images that the kernel has written.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from backgate.gateway.errors import Damaged


class Place(NamedTuple):
    """A chunk on a member."""

    member: int
    chunk: int


class Layout(ABC):
    """How chunks are spread over `members` members."""

    def __init__(self, members: int) -> None:
        if members < 1:
            raise Damaged("RAID", None, f"{members} members")
        self.members = members

    @abstractmethod
    def copies(self, chunk: int) -> Sequence[Place]:
        """Return every place that has `chunk`, the first choice first."""

    def others(self, chunk: int) -> Sequence[Place]:
        """Return the places whose XOR is `chunk`; none where there is no parity."""
        return ()


class Stripes(Layout):
    """RAID 0."""

    def copies(self, chunk: int) -> Sequence[Place]:
        row, member = divmod(chunk, self.members)
        return (Place(member, row),)


class Parity(Layout):
    """RAID 4, 5 and 6: `algorithm` as the kernel numbers them."""

    def __init__(self, members: int, parities: int, algorithm: int) -> None:
        super().__init__(members)
        self._data = members - parities
        if self._data < 1:
            raise Damaged("RAID", None, f"{members} members, {parities} of them for parity")
        if algorithm not in (SINGLE if parities == 1 else DOUBLE):
            raise Damaged("RAID", None, f"parity layout {algorithm} is not supported")
        self._parities, self._algorithm = parities, algorithm

    def copies(self, chunk: int) -> Sequence[Place]:
        row, column = divmod(chunk, self._data)
        return (Place(self._row(row)[0][column], row),)

    def others(self, chunk: int) -> Sequence[Place]:
        row, column = divmod(chunk, self._data)
        data, parity = self._row(row)
        return [Place(member, row) for member in (*data, parity) if member != data[column]]

    def _row(self, row: int) -> tuple[list[int], int]:
        """Return the members that have the data of `row`, in order, and the one with its XOR."""
        if self._parities == 1:
            return _single(self._algorithm, row, self.members)
        if self._algorithm >= SINGLE_AND_LAST:
            return _single(self._algorithm - SINGLE_AND_LAST, row, self.members - 1)
        return _double(self._algorithm, row, self.members)


LEFT_ASYMMETRIC, RIGHT_ASYMMETRIC, LEFT_SYMMETRIC, RIGHT_SYMMETRIC = range(4)
PARITY_FIRST, PARITY_LAST = 4, 5
ZERO_RESTART, N_RESTART, N_CONTINUE = 8, 9, 10  # of RAID 6 alone, as other vendors write it
SINGLE_AND_LAST = 16  # added to a layout of RAID 5: RAID 6 with its second parity on the last one
SINGLE = range(PARITY_LAST + 1)
DOUBLE = {
    *SINGLE,
    *(ZERO_RESTART, N_RESTART, N_CONTINUE),
    *range(SINGLE_AND_LAST, SINGLE_AND_LAST + PARITY_LAST),
}


def _single(algorithm: int, row: int, members: int) -> tuple[list[int], int]:
    parity = _parity(algorithm, row, members, parities=1)
    if algorithm in (LEFT_SYMMETRIC, RIGHT_SYMMETRIC):
        return [(parity + 1 + number) % members for number in range(members - 1)], parity
    return [number for number in range(members) if number != parity], parity


def _double(algorithm: int, row: int, members: int) -> tuple[list[int], int]:
    parity = _parity(algorithm, row, members, parities=2)
    if algorithm in (LEFT_SYMMETRIC, RIGHT_SYMMETRIC):  # the second parity, then data, and round
        return [(parity + 2 + number) % members for number in range(members - 2)], parity
    if algorithm == N_CONTINUE:  # the second parity stands before the first
        return [(parity + 1 + number) % members for number in range(members - 2)], parity
    second = (parity + 1) % members
    return [number for number in range(members) if number not in (parity, second)], parity


def _parity(algorithm: int, row: int, members: int, parities: int) -> int:
    if algorithm == PARITY_FIRST:
        return 0
    if algorithm == PARITY_LAST:
        return members - parities
    if algorithm in (RIGHT_ASYMMETRIC, RIGHT_SYMMETRIC, ZERO_RESTART):
        return row % members
    return members - 1 - (row + (algorithm == N_RESTART)) % members


class Copies(Layout):
    """RAID 10: `near` copies side by side, each of them `far` times, on other members."""

    def __init__(self, members: int, near: int, far: int, stride: int) -> None:
        """Let a far copy lie `stride` chunks below the one before; 0: in the very next row."""
        super().__init__(members)
        if not (near >= 1 and far >= 1 and near * far <= members):
            raise Damaged("RAID", None, f"{near} near and {far} far copies on {members} members")
        self._near, self._far, self._stride = near, far, stride

    def copies(self, chunk: int) -> Sequence[Place]:
        found = []
        for copy in range(self._near):
            row, member = divmod(chunk * self._near + copy, self.members)
            row *= 1 if self._stride else self._far
            for times in range(self._far):
                at = row + times * (self._stride or 1)
                found.append(Place((member + times * self._near) % self.members, at))
        return found

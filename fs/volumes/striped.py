"""One device out of the members of a RAID, read by its layout; a missing member by its parity."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from backgate.fs.volume import ENCODED, Device, Extent
from backgate.fs.volumes.raid_layouts import Layout, Place
from backgate.gateway.errors import Damaged

CHUNK_MAX = 1 << 30  # bytes; mdadm(8) takes any power of two, and 512 MiB is its largest seen


class _Piece(NamedTuple):
    number: int  # of the chunk in the array
    within: int  # bytes from where that chunk begins
    length: int


class Doubt(Protocol):
    """Where parity may be out of date."""

    def covers(self, start: int, stop: int) -> bool:
        """True when some of the bytes from `start` to `stop` of the members are in doubt."""


class Striped:
    """`size` bytes in chunks of `chunk` bytes over `members`, of which None are missing.

    Where there are `doubts` of the parity nothing is computed from it.
    """

    def __init__(
        self,
        members: Sequence[Device | None],
        chunk: int,
        layout: Layout,
        size: int,
        doubts: Sequence[Doubt] = (),
    ) -> None:
        """Raises `Damaged` when a missing member leaves chunks that nothing tells."""
        if not 0 < chunk <= CHUNK_MAX:
            raise Damaged("RAID", None, f"chunks of {chunk} bytes")
        if len(members) != layout.members:
            raise Damaged("RAID", None, f"{len(members)} members where {layout.members} are due")
        self._members, self._chunk, self._layout, self._doubts = members, chunk, layout, doubts
        self.size = size
        self._check_missing()

    def read_at(self, offset: int, length: int) -> bytes:
        found = []
        for piece in self._pieces(offset, length):
            place = self._present(piece.number)
            if place is None:
                found.append(self._computed(piece))
            else:
                found.append(self._read(place, piece))
        return b"".join(found)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for piece in self._pieces(offset, length):
            place = self._present(piece.number)
            if place is None:
                yield Extent(piece.length, ENCODED, 0)
                continue
            member = self._members[place.member]
            assert member is not None
            start = place.chunk * self._chunk + piece.within
            if start + piece.length > member.size:
                raise Damaged("RAID", start, "a member ends before the array does")
            yield from member.extents(start, piece.length)

    def _check_missing(self) -> None:
        missing = [number for number, member in enumerate(self._members) if member is None]
        names = ", ".join(str(number) for number in missing)
        if len(missing) > 1 and self._layout.others(0):
            raise Damaged("RAID", None, f"more than one member is missing: numbers {names}")
        for chunk in range(len(self._members) if missing else 0):  # where each member comes first
            if self._present(chunk) is None and not self._layout.others(chunk):
                raise Damaged("RAID", None, f"too many members are missing: numbers {names}")

    def _pieces(self, offset: int, length: int) -> Iterator[_Piece]:
        stop = min(offset + length, self.size)
        while offset < stop:
            number, within = divmod(offset, self._chunk)
            wanted = min(self._chunk - within, stop - offset)
            yield _Piece(number, within, wanted)
            offset += wanted

    def _present(self, number: int) -> Place | None:
        for place in self._layout.copies(number):
            if self._members[place.member] is not None:
                return place
        return None

    def _read(self, place: Place, piece: _Piece) -> bytes:
        member = self._members[place.member]
        assert member is not None  # no more are missing than the layout bears
        start = place.chunk * self._chunk + piece.within
        data = member.read_at(start, piece.length) if start < member.size else b""
        if len(data) < piece.length:
            raise Damaged("RAID", start, "a member ends before the array does")
        return data

    def _computed(self, piece: _Piece) -> bytes:
        """Return what the missing member had, as the XOR of the others."""
        others = self._layout.others(piece.number)
        if not others:
            raise Damaged(
                "RAID", piece.number * self._chunk, "all members that have it are missing"
            )
        start = others[0].chunk * self._chunk + piece.within
        if any(doubt.covers(start, start + piece.length) for doubt in self._doubts):
            reason = "a member is missing, and the parity of the others may be out of date there"
            raise Damaged("RAID", piece.number * self._chunk + piece.within, reason)
        value = 0
        for place in others:
            value ^= int.from_bytes(self._read(place, piece))
        return value.to_bytes(piece.length)

"""A chain equals the flat disk, whatever each of its images has; and finds its images again."""

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from backgate.fs.disk import Member, Piece
from backgate.fs.disks.chain import Chain
from backgate.gateway.errors import Damaged, NotFound, StoreError

SIZE_MAX = 40  # bytes of a disk: enough for every kind of border
GRAIN = 4  # bytes that an image has or has not


class Made:
    """An image that has the grains in `has`, but for the bytes in `lacks`."""

    def __init__(self, value: int, size: int, has: set[int], lacks: set[int]) -> None:
        self.where, self.size = f"image {value}", size
        self._value, self._has, self._lacks = value, has, lacks
        self.is_gone = False

    @property
    def allocated(self) -> int:
        return len(self._has) * GRAIN

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, int, bool]]:
        await trio.lowlevel.checkpoint()
        return [(at, at + 1, at // GRAIN in self._has) for at in range(offset, offset + length)]

    async def read(self, offset: int, length: int) -> Sequence[Piece]:
        await trio.lowlevel.checkpoint()
        if self.is_gone:
            raise NotFound(self.where, key=self.where)
        one = bytes([self._value])
        return [
            Piece(at, at + 1, None if at in self._lacks else one)
            for at in range(offset, offset + length)
        ]

    def lay_over(self, disk: bytearray) -> None:
        """Put what it has onto the flat disk."""
        for at in range(self.size):
            if at // GRAIN in self._has and at not in self._lacks:
                disk[at] = self._value


def grains() -> st.SearchStrategy[set[int]]:
    return st.sets(st.integers(0, SIZE_MAX // GRAIN))


@st.composite
def images(draw: st.DrawFn) -> list[Made]:
    """Images of one disk, the youngest first; it has only ever grown."""
    count = draw(st.integers(1, 4))
    sizes = sorted(draw(st.lists(st.integers(1, SIZE_MAX), min_size=count, max_size=count)))
    lacking = st.sets(st.integers(0, SIZE_MAX))
    oldest_first = [
        Made(value, size, draw(grains()), draw(lacking)) for value, size in enumerate(sizes, 1)
    ]
    return oldest_first[::-1]


def flat(members: Sequence[Made]) -> bytes:
    """Return the disk as laying one image over another makes it."""
    disk = bytearray(members[0].size)
    for member in reversed(members):
        member.lay_over(disk)
    return bytes(disk)


@pytest.mark.slow
@given(images(), st.integers(0, SIZE_MAX), st.integers(0, SIZE_MAX))
def test_any_range_of_a_chain_equals_the_slice_of_the_flat_disk(
    members: list[Made], offset: int, length: int
) -> None:
    async def resolve(_missing: str) -> Sequence[Member]:
        raise AssertionError("nothing is missing")

    chain = Chain(members, resolve, None, {})

    data = trio.run(chain.read_at, offset, length)

    assert bytes(data) == flat(members)[offset : offset + length]


def full(value: int) -> Made:
    return Made(value, 8, {0, 1}, set())


async def test_images_that_are_gone_are_found_again_once_for_all_who_read() -> None:
    old, new = full(1), full(2)
    asked = 0

    async def resolve(_missing: str) -> Sequence[Member]:
        nonlocal asked
        asked += 1
        await trio.lowlevel.checkpoint()
        return [new]

    chain = Chain([old], resolve, None, {})
    old.is_gone = True
    read: list[bytes] = []

    async def reader() -> None:
        read.append(bytes(await chain.read_at(0, 8)))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(reader)

    assert read == [b"\2" * 8] * 3
    assert asked == 1


async def test_an_image_that_stays_gone_is_damage() -> None:
    one = full(1)
    one.is_gone = True

    async def resolve(_missing: str) -> Sequence[Member]:
        return [one]

    with pytest.raises(Damaged, match="a part of the disk is gone"):
        await Chain([one], resolve, None, {}).read_at(0, 8)


async def test_a_store_that_cannot_be_asked_is_no_damage() -> None:
    one = full(1)
    one.is_gone = True

    async def resolve(_missing: str) -> Sequence[Member]:
        raise StoreError("it is away")

    with pytest.raises(StoreError, match="away"):
        await Chain([one], resolve, None, {}).read_at(0, 8)


class Short(Made):
    """An image that leaves out the first of what it should give."""

    async def read(self, offset: int, length: int) -> Sequence[Piece]:
        return (await super().read(offset, length))[1:]


async def test_an_image_that_gives_less_than_it_has_is_damage() -> None:
    async def resolve(_missing: str) -> Sequence[Member]:
        raise AssertionError("nothing is missing")

    with pytest.raises(Damaged, match="0 bytes of 8"):
        await Chain([Short(1, 8, {0, 1}, set())], resolve, None, {}).read_at(0, 8)

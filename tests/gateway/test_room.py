"""When parts have to leave the spool's disk."""

import pytest

from backgate.gateway.room import Room
from backgate.gateway.units import GIB, MIB


@pytest.mark.parametrize(
    ("limit", "most"),
    [(256 * MIB, 128 * MIB), (1 * GIB, 512 * MIB), (4 * GIB, 4 * GIB - 512 * MIB)],
)
def test_parts_leave_when_half_or_all_but_a_reserve_is_used(limit: int, most: int) -> None:
    room = Room(limit)

    room.account(most)
    assert not room.is_pressed
    room.account(1)
    assert room.is_pressed

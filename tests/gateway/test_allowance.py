"""Tests of `gateway/allowance.py`."""

import trio
from trio.testing import wait_all_tasks_blocked

from backgate.gateway.allowance import Allowance


async def test_no_more_than_the_limit_is_held_at_a_time() -> None:
    allowance, most = Allowance(10), 0

    async def take(size: int) -> None:
        nonlocal most
        async with allowance.taken(size):
            most = max(most, allowance.used)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for size in (4, 5, 6, 3, 10, 1, 9):
            nursery.start_soon(take, size)

    assert most == 10
    assert allowance.used == 0


async def test_what_is_larger_than_the_limit_passes_alone() -> None:
    allowance = Allowance(10)

    async with allowance.taken(25):
        assert allowance.used == 25

    assert allowance.used == 0


async def test_who_comes_first_is_served_first() -> None:
    allowance, order = Allowance(10), list[int]()

    async def take(size: int) -> None:
        async with allowance.taken(size):
            order.append(size)

    async with trio.open_nursery() as nursery, allowance.taken(5):
        for size in (8, 3):
            nursery.start_soon(take, size)
            await wait_all_tasks_blocked()
        assert order == []

    assert order == [8, 3]


async def test_who_gives_up_waiting_holds_nothing() -> None:
    allowance = Allowance(10)

    async with allowance.taken(10):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with allowance.taken(5):
                raise AssertionError

    assert allowance.used == 0

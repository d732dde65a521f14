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


async def test_who_comes_first_in_a_line_is_served_first() -> None:
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


async def served(allowance: Allowance, wanted: list[tuple[str, int]]) -> list[str]:
    """Return the order in which `wanted`, each with its line, are served one at a time."""
    order = list[str]()

    async def take(line: str, size: int) -> None:
        async with allowance.taken(size, line):
            order.append(f"{line}{size}")
            await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery, allowance.taken(allowance.limit):
        for line, size in wanted:
            nursery.start_soon(take, line, size)
            await wait_all_tasks_blocked()
    return order


async def test_who_has_much_to_take_keeps_no_other_line_waiting_for_all_of_it() -> None:
    order = await served(Allowance(10), [("long", 10)] * 5 + [("small", 1)])

    assert order == ["long10", "small1"] + ["long10"] * 4


async def test_lines_are_served_alike_byte_for_byte() -> None:
    order = await served(Allowance(10), [("long", 10)] * 3 + [("small", 5)] * 6)

    assert order == ["long10", "small5", "small5"] * 3


async def test_who_comes_back_has_not_become_the_first() -> None:
    allowance, order = Allowance(10), list[str]()

    async def take(line: str) -> None:
        async with allowance.taken(10, line):
            order.append(line)
            await wait_all_tasks_blocked()

    async def come_back() -> None:
        for _ in range(3):
            await take("small")

    async with trio.open_nursery() as nursery, allowance.taken(10):
        for _ in range(3):
            nursery.start_soon(take, "long")
        await wait_all_tasks_blocked()
        nursery.start_soon(come_back)
        await wait_all_tasks_blocked()

    assert order == ["long", "small", "long", "small", "long", "small"]


async def test_who_gives_up_waiting_holds_nothing() -> None:
    allowance = Allowance(10)

    async with allowance.taken(10):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with allowance.taken(5):
                raise AssertionError

    assert allowance.used == 0


async def test_who_comes_later_does_not_overtake_who_waits() -> None:
    allowance, order = Allowance(10), list[int]()

    async def take(size: int) -> None:
        async with allowance.taken(size):
            order.append(size)

    async with trio.open_nursery() as nursery, allowance.taken(5):
        nursery.start_soon(take, 8)
        await wait_all_tasks_blocked()
        nursery.start_soon(take, 5)
        await wait_all_tasks_blocked()
        assert order == []

    assert order == [8, 5]

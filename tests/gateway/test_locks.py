"""Tests of `gateway/locks.py`."""

import trio
from trio.testing import wait_all_tasks_blocked

from backgate.gateway.locks import Lock


async def test_one_holds_it_and_the_others_follow_in_turn() -> None:
    lock, order = Lock(), list[int]()

    async def take(number: int) -> None:
        async with lock:
            order.append(number)
            await trio.lowlevel.checkpoint()
            order.append(number)

    async with trio.open_nursery() as nursery, lock:
        for number in range(3):
            nursery.start_soon(take, number)
            await wait_all_tasks_blocked()
        assert order == []

    assert order == [0, 0, 1, 1, 2, 2]


async def test_a_free_one_is_taken_without_letting_others_run() -> None:
    lock, has_run = Lock(), False

    async def run() -> None:
        nonlocal has_run
        has_run = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        async with lock:
            assert not has_run


async def test_who_is_cancelled_holds_nothing() -> None:
    lock = Lock()
    with trio.CancelScope() as before:
        before.cancel()
        async with lock:
            raise AssertionError
    async with trio.open_nursery() as nursery, lock:
        nursery.start_soon(lock.__aenter__)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    async with lock:
        assert before.cancelled_caught

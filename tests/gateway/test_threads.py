"""Leaving trio's thread: results, errors, deadlines and cancellation."""

import threading
from contextlib import suppress
from functools import partial

import pytest
import trio

from backgate.gateway.threads import call


@pytest.fixture
def limiter() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(1)


async def test_it_gives_what_the_function_returns(limiter: trio.CapacityLimiter) -> None:
    here = threading.get_ident()

    there = await call(threading.get_ident, limiter, 60)

    assert there != here


async def test_it_raises_what_the_function_raises(limiter: trio.CapacityLimiter) -> None:
    def fail() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        await call(fail, limiter, 60)


@pytest.mark.parametrize("count", [1, 3])
async def test_a_call_that_takes_too_long_is_abandoned(count: int) -> None:
    gate, limiter = threading.Event(), trio.CapacityLimiter(count)
    overdue = 0

    async def wait() -> None:
        nonlocal overdue
        with pytest.raises(TimeoutError, match="no answer within"):
            await call(gate.wait, limiter, 0.02)
        overdue += 1

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(wait)

    assert overdue == count
    gate.set()


async def test_a_shorter_deadline_is_kept_beside_a_longer() -> None:
    gate, limiter = threading.Event(), trio.CapacityLimiter(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, gate.wait, limiter, 600)
        await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(TimeoutError):
            await call(gate.wait, limiter, 0.02)

        gate.set()


async def test_waiting_for_the_limiter_does_not_count(limiter: trio.CapacityLimiter) -> None:
    gate, called = threading.Event(), threading.Event()

    async def late() -> None:
        with suppress(TimeoutError):  # on a busy machine, once it has begun
            await call(called.set, limiter, 0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, gate.wait, limiter, 600)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(late)
        with pytest.raises(TimeoutError):
            await call(gate.wait, trio.CapacityLimiter(1), 0.05)

        gate.set()
    assert called.wait(60)


async def test_cancellation_does_not_wait_and_the_token_comes_back(
    limiter: trio.CapacityLimiter,
) -> None:
    gate = threading.Event()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, gate.wait, limiter, 600)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert limiter.borrowed_tokens == 1

    gate.set()

    assert await call(int, limiter, 60) == 0


def test_a_thread_may_outlive_the_run() -> None:
    gate = threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await call(gate.wait, trio.CapacityLimiter(1), 0.02)

    trio.run(main)

    gate.set()


async def test_waiting_for_a_limiter_that_nobody_gives_back_ends(
    limiter: trio.CapacityLimiter,
) -> None:
    gate = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, gate.wait, limiter, 600)
        await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(TimeoutError, match="kept all threads"):
            await call(int, limiter, 60, 0.02)

        gate.set()
    assert await call(int, limiter, 60, 0.02) == 0


async def test_an_overdue_call_keeps_its_limiter_until_it_has_ended(
    limiter: trio.CapacityLimiter,
) -> None:
    gate = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within"):
        await call(gate.wait, limiter, 0.02)
    assert limiter.borrowed_tokens == 1

    gate.set()

    assert await call(int, limiter, 60) == 0
    assert limiter.borrowed_tokens == 0


async def test_who_was_cancelled_before_begins_nothing(limiter: trio.CapacityLimiter) -> None:
    begun = threading.Event()
    with trio.CancelScope() as scope:
        scope.cancel()
        await call(begun.set, limiter, 60)

    assert scope.cancelled_caught
    assert not begun.is_set()
    assert limiter.borrowed_tokens == 0


async def test_who_waits_for_a_limiter_comes_before_who_asks_later(
    limiter: trio.CapacityLimiter,
) -> None:
    gate = threading.Event()
    order: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, gate.wait, limiter, 600)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            nursery.start_soon(call, partial(order.append, number), limiter, 600)
            await trio.testing.wait_all_tasks_blocked()

        gate.set()

    assert order == [0, 1, 2]

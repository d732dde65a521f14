import pytest
import trio
import trio.testing

from backgate.gateway.errors import Unreachable
from backgate.gateway.pacing import BURST, LONGEST_HOLD, Pacing
from backgate.gateway.provider import Abilities, Rates
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.store import ObjectStore


async def test_requests_are_held_to_the_rate_over_all_tasks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = Pacing(Rates(list=5))
    began = trio.current_time()

    async def ask() -> None:
        for _ in range(25):
            await pacing.turn("page")

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)

    assert trio.current_time() - began == pytest.approx((100 - BURST - 1) / 5)


async def test_an_idle_store_is_not_owed_more_than_a_burst(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = Pacing(Rates(get=10))
    await trio.sleep(3600)
    began = trio.current_time()

    for _ in range(100 + BURST + 1):
        await pacing.turn("head")

    assert trio.current_time() - began == pytest.approx(10)


async def test_kinds_do_not_wait_for_one_another(autojump_clock: trio.testing.MockClock) -> None:
    pacing = Pacing(Rates(list=1))
    for _ in range(BURST + 1):
        await pacing.turn("page")
    pacing.hold("page", 10)
    began = trio.current_time()

    await pacing.turn("get")
    await pacing.turn("put_part")

    assert trio.current_time() == began


async def test_what_a_store_asks_one_caller_to_wait_all_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    memory = Memory("memory:pacing")
    slow = Unreachable("503", retry_after=20)
    memory.faults = [Fault(verb="page", times=1, error=lambda: slow)]
    store = ObjectStore(memory, patience=60)
    ended: list[float] = []

    async def ask(after: float) -> None:
        await trio.sleep(after)
        await store.page()
        ended.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for after in (0, 1, 2):
            nursery.start_soon(ask, after)

    assert min(ended) - began == pytest.approx(20)
    assert len(memory.requests) == 1 + 3


async def test_nobody_is_held_for_longer_than_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = Pacing(Rates())
    began = trio.current_time()

    pacing.hold("page", 1e9)
    await pacing.turn("page")

    assert trio.current_time() - began == pytest.approx(LONGEST_HOLD)


async def test_a_store_is_asked_at_the_rate_of_its_profile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    memory = Memory("memory:rated", Abilities(rates=Rates(put=10)))
    store = ObjectStore(memory)
    began = trio.current_time()

    for number in range(BURST + 11):
        await store.put(f"{number}", b"")

    assert trio.current_time() - began == pytest.approx(1)

"""A bounded number of workers: who must make room for another, and who may stay."""

import pytest
import trio
from trio.testing import MockClock

from backgate.fs.parser.places import REST, TURN, Places


class Owner:
    """Has a worker, or has not."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.is_alive = False

    async def start(self) -> None:
        await self._places.enter(self, self.end)
        self.is_alive = True

    def end(self) -> None:
        self.is_alive = False
        self._places.leave(self)

    def work(self) -> None:
        self._places.work(self)

    def rest(self) -> None:
        self._places.rest(self)


@pytest.fixture
async def owners() -> list[Owner]:
    """Two with a worker at work, and two without; there are two places."""
    places = Places(2)
    found = [Owner(places) for _ in range(4)]
    await found[0].start()
    await found[1].start()
    return found


def alive(owners: list[Owner]) -> list[int]:
    return [number for number, owner in enumerate(owners) if owner.is_alive]


async def test_the_longest_idle_gives_way(owners: list[Owner], autojump_clock: MockClock) -> None:
    owners[1].rest()
    await trio.sleep(REST)
    owners[0].rest()
    await trio.sleep(REST)

    await owners[2].start()
    assert alive(owners) == [0, 2]
    await owners[3].start()
    assert alive(owners) == [2, 3]


async def test_one_that_is_asked_again_does_not_give_way(
    owners: list[Owner], autojump_clock: MockClock
) -> None:
    for owner in owners[:2]:
        owner.rest()
    await trio.sleep(REST)
    owners[0].work()

    await owners[2].start()

    assert alive(owners) == [0, 2]


async def test_a_short_pause_is_no_idleness(owners: list[Owner], autojump_clock: MockClock) -> None:
    owners[0].rest()
    began = trio.current_time()

    await owners[2].start()

    assert alive(owners) == [1, 2]
    assert REST <= trio.current_time() - began < 2 * REST


async def test_where_all_are_in_use_one_makes_room_after_its_turn(
    owners: list[Owner], autojump_clock: MockClock
) -> None:
    began = trio.current_time()

    async def use(owner: Owner) -> None:
        while owner.is_alive:
            owner.work()
            await trio.sleep(0.4)
            owner.rest()
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for owner in owners[:2]:
            nursery.start_soon(use, owner)
        await owners[2].start()
        waited = trio.current_time() - began
        assert len(alive(owners)) == 2
        nursery.cancel_scope.cancel()

    assert TURN <= waited < TURN + 2 * REST


async def test_who_came_first_is_let_in_first(
    owners: list[Owner], autojump_clock: MockClock
) -> None:
    let_in = []

    async def enter(number: int) -> None:
        await owners[number].start()
        let_in.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(enter, 3)
        await trio.sleep(0.5)
        nursery.start_soon(enter, 2)
        await trio.sleep(0.5)
        assert let_in == []
        owners[0].end()
        await trio.sleep(0.5)
        assert let_in == [3]
        owners[1].end()

    assert let_in == [3, 2]


async def test_who_goes_away_while_he_waits_takes_no_place(
    owners: list[Owner], autojump_clock: MockClock
) -> None:
    with trio.move_on_after(0.5):
        await owners[2].start()
    owners[0].end()

    await owners[3].start()

    assert alive(owners) == [1, 3]

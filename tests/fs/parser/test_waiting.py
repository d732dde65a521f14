"""Who is served next: looks and bytes in turn, each in the order in which they came."""

import pytest
import trio
import trio.testing

from backgate.fs.parser.messages import Read, Root
from backgate.fs.parser.waiting import Job, Waiting


def look(number: int) -> Job:
    return Job(Root(number), lambda said: said)


def read(number: int) -> Job:
    return Job(Read(number, b"", 0, 1), lambda said: said)


async def order(waiting: Waiting, count: int) -> list[str]:
    jobs = [await waiting.next() for _ in range(count)]
    return [f"{type(job.request).__name__} {job.request.volume}" for job in jobs]  # type: ignore[union-attr]


async def test_a_look_stands_behind_one_read_at_most_and_a_read_behind_one_look() -> None:
    waiting = Waiting()
    for number in range(3):
        waiting.add(read(number))
    for number in range(4):
        waiting.add(look(number))

    assert await order(waiting, 7) == [
        "Root 0",
        "Read 0",
        "Root 1",
        "Read 1",
        "Root 2",
        "Read 2",
        "Root 3",
    ]


async def test_one_kind_alone_does_not_wait_for_the_other() -> None:
    waiting = Waiting()
    for number in range(2):
        waiting.add(read(number))

    assert await order(waiting, 2) == ["Read 0", "Read 1"]


async def test_who_has_gone_away_is_not_served() -> None:
    waiting = Waiting()
    jobs = [look(0), look(1)]
    for job in jobs:
        waiting.add(job)

    assert waiting.withdraw(jobs[0])

    assert await order(waiting, 1) == ["Root 1"]
    assert not waiting.withdraw(jobs[1])


async def test_whoever_waits_for_the_next_one_gets_it_when_it_comes(nursery: trio.Nursery) -> None:
    waiting, got = Waiting(), []

    async def wait() -> None:
        got.append(await waiting.next())

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    job = look(0)
    waiting.add(job)
    await trio.testing.wait_all_tasks_blocked()

    assert got == [job]


async def test_nobody_is_lost_when_who_serves_stops_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    waiting = Waiting()
    with trio.move_on_after(1):
        await waiting.next()
    waiting.add(look(0))

    assert await order(waiting, 1) == ["Root 0"]


@pytest.mark.parametrize("is_late", [False, True])
async def test_all_are_told_when_nobody_serves_any_more(is_late: bool) -> None:
    waiting, job = Waiting(), look(0)
    if not is_late:
        waiting.add(job)
    waiting.close()
    if is_late:
        waiting.add(job)

    assert job.ended.is_set()
    assert not job.is_answered

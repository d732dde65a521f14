"""Waiting out faults: which, how long, and what is raised in the end."""

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from backgate.gateway.counters import Counters
from backgate.gateway.errors import NotFound, Refused, Unreachable
from backgate.gateway.retry import LONGEST_ASKED, LONGEST_PAUSE, retried


class Failing:
    """An attempt that fails as often as there are errors, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


class Down:
    """An attempt that never succeeds."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def __call__(self) -> None:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise Unreachable(f"attempt {len(self.times)}")


async def test_an_answer_needs_one_attempt() -> None:
    attempt, counters = Failing(), Counters()

    assert await retried(attempt, patience=60, counters=counters) == "answer"

    assert len(attempt.times) == 1
    assert counters.errors == counters.retries == 0


async def test_faults_are_retried_until_there_is_an_answer(autojump_clock: MockClock) -> None:
    attempt, counters = Failing(*[Unreachable("down")] * 5), Counters()

    assert await retried(attempt, patience=60, counters=counters) == "answer"

    assert (counters.errors, counters.retries) == (5, 5)
    assert counters.last_error == "down"
    assert counters.waiting == 0


async def test_pauses_grow_up_to_a_limit(autojump_clock: MockClock) -> None:
    attempt = Failing(*[Unreachable("down")] * 14)

    await retried(attempt, patience=3600, counters=Counters())

    pauses = [b - a for a, b in pairwise(attempt.times)]
    assert pauses[0] <= 0.2
    assert all(later > earlier / 2 for earlier, later in pairwise(pauses))
    assert LONGEST_PAUSE / 2 <= pauses[-1] <= LONGEST_PAUSE


async def test_patience_ends_with_the_last_fault(autojump_clock: MockClock) -> None:
    attempt = Down()

    with pytest.raises(Unreachable, match=r"attempt \d+") as caught:
        await retried(attempt, patience=60, counters=Counters())

    assert str(caught.value) == f"attempt {len(attempt.times)}"
    assert attempt.times[-1] - attempt.times[0] == pytest.approx(60)


async def test_without_patience_there_is_one_attempt() -> None:
    attempt, counters = Down(), Counters()

    with pytest.raises(Unreachable):
        await retried(attempt, patience=0, counters=counters)

    assert len(attempt.times) == 1
    assert counters.errors == 1


async def test_the_stores_own_retry_after_is_honoured(autojump_clock: MockClock) -> None:
    attempt = Failing(Unreachable("slow down", retry_after=17))

    await retried(attempt, patience=60, counters=Counters())

    assert attempt.times[1] - attempt.times[0] == pytest.approx(17)


async def test_a_retry_after_beyond_the_patience_does_not_end_it_early(
    autojump_clock: MockClock,
) -> None:
    attempt = Failing(Unreachable("maintenance", retry_after=3600))

    assert await retried(attempt, patience=60, counters=Counters()) == "answer"

    assert attempt.times[1] - attempt.times[0] == pytest.approx(60)


async def test_a_very_long_retry_after_is_a_guess_and_the_store_is_asked_before(
    autojump_clock: MockClock,
) -> None:
    attempt = Failing(Unreachable("maintenance", retry_after=10**9))

    assert await retried(attempt, patience=3600, counters=Counters()) == "answer"

    assert attempt.times[1] - attempt.times[0] == pytest.approx(LONGEST_ASKED)


@pytest.mark.parametrize("error", [NotFound("gone"), Refused("no"), ValueError("a bug")])
async def test_a_sure_answer_is_not_retried(error: Exception) -> None:
    attempt = Failing(error)

    with pytest.raises(type(error)):
        await retried(attempt, patience=60, counters=Counters())

    assert len(attempt.times) == 1


async def test_waiting_calls_are_counted(autojump_clock: MockClock) -> None:
    counters = Counters()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            attempt = Failing(Unreachable("down", retry_after=30))
            nursery.start_soon(lambda call=attempt: retried(call, patience=60, counters=counters))
        await trio.sleep(10)
        during = counters.waiting

    assert during == 3
    assert counters.waiting == 0


async def test_a_cancelled_call_no_longer_counts_as_waiting(autojump_clock: MockClock) -> None:
    counters = Counters()

    with trio.move_on_after(10):
        await retried(Down(), patience=3600, counters=counters)

    assert counters.waiting == 0

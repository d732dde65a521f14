import pytest

from backgate.gateway.metadata.pace import (
    LARGEST,
    QUICK,
    SHARE,
    SLOW,
    SMALLEST,
    TRIAL,
    Pace,
    smallest,
)


def pages(pace: Pace, most: int, hours: float, *, hang: float = 60.0) -> tuple[int, float]:
    """Ask a store that hangs on pages of over `most` keys; returns keys told, seconds lost."""
    now, told, lost = 0.0, 0, 0.0
    while now < hours * 3600:
        if pace.size > most:
            now, lost = now + hang, lost + hang
            pace.failed(pace.size, hang, now)
        else:
            now, told = now + 1, told + pace.size
            pace.succeeded(pace.size, now)
    return told, lost


def test_a_time_out_halves_the_page_down_to_the_smallest() -> None:
    pace = Pace(LARGEST)
    sizes = []

    for _ in range(8):
        pace.failed(pace.size, SLOW, 0)
        sizes.append(pace.size)

    assert sizes == [500, 250, 125, 62, 31, 15, SMALLEST, SMALLEST]
    assert pace.is_hopeless


def test_quick_faults_halve_the_page_only_when_they_come_in_a_row() -> None:
    pace = Pace(LARGEST)
    sizes = []

    for _ in range(2 * QUICK):
        pace.failed(pace.size, 0.1, 0)
        sizes.append(pace.size)

    assert sizes == [1000, 1000, 500, 500, 500, 250]


def test_a_store_that_is_busy_does_not_make_us_forget_what_it_copes_with() -> None:
    pace = Pace(LARGEST)
    pages(pace, 100, hours=0.1)
    now, hung = 360.0, 0

    for number in range(1, 3000):
        now += 0.1
        if pace.size > 100:
            hung += 1
            now += 60
            pace.failed(pace.size, 60, now)
        elif number % 7 in (0, 1):
            pace.failed(pace.size, 0.01, now)
        else:
            pace.succeeded(pace.size, now)

    assert hung <= 1
    assert pace.size > 60


def test_a_page_of_any_size_says_that_the_store_answers() -> None:
    pace = Pace(LARGEST)

    for _ in range(2 * QUICK):
        pace.failed(LARGEST, 0.1, 0)
        pace.succeeded(SMALLEST, 0)

    assert pace.size == LARGEST


def test_streams_that_time_out_together_halve_the_page_once() -> None:
    pace = Pace(LARGEST)

    for _ in range(4):
        pace.failed(LARGEST, SLOW, 0)

    assert pace.size == LARGEST // 2


def test_pages_grow_again_when_the_store_copes() -> None:
    pace = Pace(SMALLEST)

    for _ in range(7 * TRIAL):
        pace.succeeded(pace.size, 0)

    assert pace.size == LARGEST


def test_an_answer_to_a_page_asked_for_when_they_were_smaller_says_nothing() -> None:
    pace = Pace(100)

    for _ in range(10 * TRIAL):
        pace.succeeded(99, 0)

    assert pace.size == 100


@pytest.mark.parametrize("most", [10, 64, 100, 333, 999])
def test_the_largest_page_that_the_store_copes_with_is_found_and_kept(most: int) -> None:
    pace = Pace(LARGEST)

    pages(pace, most, hours=0.7)

    assert most * 0.75 < pace.size <= most


def test_trials_that_fail_take_a_small_share_of_the_time() -> None:
    pace = Pace(LARGEST)
    pages(pace, 100, hours=0.5)

    _, lost = pages(pace, 100, hours=100)

    assert lost < 100 * 3600 * 4 / SHARE


def test_a_store_that_copes_with_more_again_is_noticed() -> None:
    pace = Pace(LARGEST)
    pages(pace, 100, hours=0.5)

    pages(pace, LARGEST, hours=2)

    assert pace.size == LARGEST


def test_a_store_that_copes_with_less_than_it_did_is_given_way() -> None:
    pace = Pace(LARGEST)
    pages(pace, 500, hours=0.5)

    pages(pace, 40, hours=0.5)

    assert 20 < pace.size <= 40


def test_a_listing_by_delimiter_gives_way_at_once() -> None:
    pace = Pace(LARGEST, give_way=smallest)

    pace.failed(pace.size, SLOW, 0)
    after_one = (pace.size, pace.is_hopeless)
    pace.failed(pace.size, SLOW, 0)

    assert after_one == (SMALLEST, False)
    assert pace.is_hopeless


def test_an_answer_restores_hope() -> None:
    pace = Pace(SMALLEST)
    pace.failed(SMALLEST, SLOW, 0)

    pace.succeeded(SMALLEST, 0)

    assert not pace.is_hopeless

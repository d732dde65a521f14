from backgate.gateway.metadata.pace import (
    FIRST_TRIAL,
    LARGEST,
    LAST_TRIAL,
    SLOW,
    SMALLEST,
    Pace,
    smallest,
)


def test_a_time_out_halves_the_page_down_to_the_smallest() -> None:
    pace = Pace(LARGEST)
    sizes = []

    for _ in range(8):
        pace.failed(SLOW)
        sizes.append(pace.size)

    assert sizes == [500, 250, 125, 62, 31, 15, SMALLEST, SMALLEST]
    assert pace.is_hopeless


def test_a_quick_fault_halves_the_page_only_when_it_comes_again() -> None:
    pace = Pace(LARGEST)

    pace.failed(0.1)
    first = pace.size
    pace.failed(0.1)

    assert (first, pace.size) == (LARGEST, LARGEST // 2)


def test_pages_grow_again_when_the_store_copes() -> None:
    pace = Pace(SMALLEST)

    for _ in range(7 * FIRST_TRIAL):
        pace.succeeded()

    assert pace.size == LARGEST


def test_a_store_that_never_copes_with_more_is_tried_ever_more_rarely() -> None:
    pace, failures, pages = Pace(62), 0, 2000

    for _ in range(pages):
        if pace.size > 100:
            pace.failed(SLOW)
            failures += 1
        else:
            pace.succeeded()

    assert pace.size in (62, 124)
    assert failures < 3 * pages // LAST_TRIAL


def test_a_listing_by_delimiter_gives_way_at_once() -> None:
    pace = Pace(LARGEST, smallest)

    pace.failed(SLOW)
    after_one = (pace.size, pace.is_hopeless)
    pace.failed(SLOW)

    assert after_one == (SMALLEST, False)
    assert pace.is_hopeless


def test_an_answer_restores_hope() -> None:
    pace = Pace(SMALLEST)
    pace.failed(SLOW)

    pace.succeeded()

    assert not pace.is_hopeless

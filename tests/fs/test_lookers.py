"""Who gets attributes with the names of a directory, and who names alone."""

from backgate.fs.lookers import DIRECTORIES, LOOKS, Lookers


def look(lookers: Lookers, *, directory: int, task: int) -> None:
    for _ in range(LOOKS):
        lookers.looked(directory, task)


def test_who_looks_at_what_was_listed_is_given_attributes_from_then_on() -> None:
    lookers = Lookers()

    lookers.listed(directory=7, task=1)
    assert not lookers.is_one(1)
    look(lookers, directory=7, task=1)

    assert lookers.is_one(1)
    assert not lookers.is_one(2)


def test_threads_that_share_the_work_both_count() -> None:
    lookers = Lookers()

    lookers.listed(directory=7, task=1)
    look(lookers, directory=7, task=2)

    assert lookers.is_one(1)
    assert lookers.is_one(2)


def test_who_opens_names_it_knows_is_nobody_who_lists() -> None:
    lookers = Lookers()

    lookers.listed(directory=7, task=1)
    look(lookers, directory=8, task=1)

    assert not lookers.is_one(1)


def test_directories_listed_long_ago_are_forgotten() -> None:
    lookers = Lookers()

    for directory in range(DIRECTORIES + 1):
        lookers.listed(directory, task=1)
    look(lookers, directory=0, task=1)

    assert not lookers.is_one(1)


def test_a_look_at_a_few_is_not_one_at_all() -> None:
    lookers = Lookers()

    lookers.listed(directory=7, task=1)
    lookers.looked(directory=7, task=1)

    assert not lookers.is_one(1)

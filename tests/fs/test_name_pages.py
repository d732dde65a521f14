"""Pages of names that are kept for who lists again."""

import stat

from backgate.fs.name_pages import KEPT, NamePages
from backgate.fs.tree import Entry, Names

DIRECTORY = Entry(name=b"d", mode=stat.S_IFDIR | 0o755)


def test_a_page_comes_back_as_it_was() -> None:
    pages = NamePages()
    told = Names([b"a", DIRECTORY, b"new\nline", DIRECTORY], b"cursor")

    pages.put(1, "x/", None, told)
    pages.put(1, "x/", b"cursor", Names([DIRECTORY], None))

    assert pages.get(1, "x/", None) == told
    assert pages.get(1, "x/", b"cursor") == Names([DIRECTORY], None)
    assert pages.get(1, "y/", None) is None


def test_a_change_of_the_index_makes_all_pages_old() -> None:
    pages = NamePages()
    pages.put(1, "x/", None, Names([b"a"], None))

    assert pages.get(2, "x/", None) is None
    pages.put(2, "y/", None, Names([b"b"], None))
    assert pages.get(1, "x/", None) is None
    assert pages.get(2, "x/", None) is None


def test_no_more_is_kept_than_there_is_room_for() -> None:
    pages = NamePages()
    names = [b"%0200d" % number for number in range(1000)]
    count = 2 * KEPT // (201 * 1000)
    for number in range(count):
        pages.put(1, f"{number}/", None, Names(names, None))

    kept = sum(pages.get(1, f"{number}/", None) is not None for number in range(count))

    assert count // 3 < kept < count * 2 // 3


def test_an_empty_directory_is_not_kept() -> None:
    pages = NamePages()

    pages.put(1, "x/", None, Names([], None))

    assert pages.get(1, "x/", None) is None

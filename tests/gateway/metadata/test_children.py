import sqlite3
import stat
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.attributes import Attributes
from backgate.gateway.keys import name_beside, name_of
from backgate.gateway.metadata import names, spans
from backgate.gateway.metadata.children import READ_OVER, Child, children, listed, long_named
from backgate.gateway.metadata.database import Corrupt
from backgate.gateway.metadata.file import IndexFile
from backgate.gateway.metadata.own import keep_directories
from backgate.gateway.metadata.rows import Known, Subdirectory, packed

parts = st.sampled_from(["a", "a-", "a.b", "b", "", ".", "é", "%=a", "n" * 300]) | st.text(
    alphabet="ab\0!/0", max_size=2
)
keys = st.lists(parts, min_size=1, max_size=4).map("/".join).filter(bool)
contents = st.dictionaries(keys, st.integers(0, 1), max_size=30)
directories = st.sets(st.lists(parts, min_size=1, max_size=2).map(lambda p: "/".join(p) + "/"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexFile]:
    file = IndexFile(tmp_path_factory.mktemp("children") / "index.sqlite", 1)
    yield file
    file.close(is_clean=True)


def fill(file: IndexFile, objects: dict[str, int], rows: set[str]) -> sqlite3.Connection:
    db = file.front
    with file.transaction(db) as change:
        db.execute("DELETE FROM object")
        db.execute("DELETE FROM directory WHERE prefix <> x''")
        db.executemany(
            "INSERT INTO object VALUES (?, ?, 0, '', NULL, 0, 1, 0)",
            [(spans.encoded(key), size) for key, size in objects.items()],
        )
        for prefix in rows:
            keep_directories(change, spans.encoded(prefix))
    return db


def expected(objects: dict[str, int], rows: set[str], prefix: str) -> dict[str, str]:
    """What a directory shows: name -> key, or prefix of a subdirectory."""
    paths = [*objects, *rows]
    below = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    inner = {path.split("/")[0] for path in below if "/" in path}
    shown = {name_of(component): f"{prefix}{component}/" for component in inner}
    for key, size in objects.items():
        component = key.removeprefix(prefix)
        if not key.startswith(prefix) or "/" in component or (key == prefix and not size):
            continue
        shown[(name_beside if component in inner else name_of)(component)] = key
    return shown


def shown(found: list[tuple[str, Known | Subdirectory]]) -> list[tuple[str, str]]:
    return [(name, one.info.key if isinstance(one, Known) else one.prefix) for name, one in found]


def name_in(one: Child | bytes) -> str:
    return one.decode() if isinstance(one, bytes) else one[0]


@pytest.mark.slow
@given(contents, directories, st.integers(1, 5))
def test_a_directory_shows_every_child_once_in_pages_of_any_size(
    file: IndexFile, objects: dict[str, int], rows: set[str], limit: int
) -> None:
    db = fill(file, objects, rows)
    prefixes = {"", *rows} | {key[: key.rfind("/") + 1] for key in objects}

    for prefix in prefixes:
        found: list[tuple[str, str]] = []
        start: bytes | None = spans.encoded(prefix)
        while start is not None:
            names_alone, following = listed(db, prefix, start, limit)
            page, start = children(db, prefix, start, limit)
            assert len(page) <= limit
            assert following == start
            assert [name_in(one) for one in names_alone] == [name for name, _ in page]
            assert [one for one in names_alone if not isinstance(one, bytes)] == [
                page[at] for at, one in enumerate(names_alone) if not isinstance(one, bytes)
            ]
            found += shown(page)

        assert dict(found) == expected(objects, rows, prefix)
        assert len(found) == len(dict(found))


@pytest.mark.slow
@given(contents, directories)
def test_every_child_is_found_by_its_component(
    file: IndexFile, objects: dict[str, int], rows: set[str]
) -> None:
    db = fill(file, objects, rows)

    for _, one in children(db, "", None, 1000)[0]:
        path = one.info.key if isinstance(one, Known) else one.prefix[:-1]
        known, directory = names.named(db, spans.encoded(path))

        assert one in (known, directory)


def test_many_objects_below_a_subdirectory_are_jumped_over(file: IndexFile) -> None:
    below = {f"big/{number:05}": 1 for number in range(20 * READ_OVER)}
    db = fill(file, {**below, "a": 1, "z": 1}, set())
    seen: list[str] = []
    db.set_trace_callback(seen.append)

    found, stop = children(db, "", None, 1000)

    db.set_trace_callback(None)
    assert [name for name, _ in found] == ["a", "big", "z"]
    assert stop is None
    assert len(seen) == 3  # two searches for objects, one for directories


def test_a_marker_gives_its_directory_attributes_and_is_not_shown_in_it(file: IndexFile) -> None:
    db = fill(file, {"made/": 0}, set())

    assert [name for name, _ in children(db, "", None, 10)[0]] == ["made"]
    assert children(db, "made/", None, 10) == ([], None)


def test_a_long_component_is_found_among_its_siblings(file: IndexFile) -> None:
    one, other = "n" * 300 + "1", "n" * 300 + "2"
    db = fill(file, {f"d/{one}": 1, f"d/{other}/x": 1}, set())

    assert long_named(db, "d/", name_of(one), "n" * 100) == one
    assert long_named(db, "d/", name_of(other), "n" * 100) == other
    assert long_named(db, "d/", name_of("n" * 301), "n" * 100) is None


def test_names_alone_are_told_of_files_only(file: IndexFile) -> None:
    db = fill(file, {"file": 1, "link": 1, "own": 1, "both": 1, "both/x": 1, "new\nline": 1}, set())
    for key, mode in {"link": stat.S_IFLNK | 0o777, "own": stat.S_IFREG | 0o600}.items():
        data = packed(Attributes(mode=mode, uid=0, gid=0, mtime_ns=0))
        db.execute("UPDATE object SET attributes = ? WHERE key = ?", (data, spans.encoded(key)))

    found, _ = listed(db, "", None, 10)

    db.rollback()
    assert [one for one in found if isinstance(one, bytes)] == [b"file", b"new\nline", b"own"]
    assert {one[0] for one in found if not isinstance(one, bytes)} == {"both", "%=both", "link"}


def test_names_that_are_no_text_tell_of_a_damaged_index(file: IndexFile) -> None:
    db = fill(file, {"a": 1, "b": 1}, set())
    db.execute("UPDATE object SET key = x'61ff' WHERE key = x'61'")

    with pytest.raises(Corrupt):
        listed(db, "", None, 10)
    db.rollback()

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.metadata import coverage
from backgate.gateway.metadata.file import IndexFile

POINTS = 12
points = st.integers(0, POINTS)
spans = st.tuples(points, points).map(sorted)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("coverage") / "index.sqlite"
    file = IndexFile(path, 1)
    yield file.front
    file.close(is_clean=True)


def key(point: int) -> bytes:
    return b"%02d" % point


@pytest.mark.slow
@given(st.lists(st.tuples(spans, st.integers(1, 5)), max_size=12), spans, st.integers(1, 5))
def test_coverage_is_what_was_told_last_of_each_key(
    db: sqlite3.Connection,
    told: list[tuple[list[int], int]],
    asked: list[int],
    since: int,
) -> None:
    db.execute("DELETE FROM covered")
    latest: dict[int, tuple[int, int]] = {}  # point -> pass, time
    for time, ((start, stop), number) in enumerate(told):
        coverage.cover(db, key(start), key(stop), number, time)
        latest |= dict.fromkeys(range(start, stop), (number, time))

    start, stop = asked
    confirmed = coverage.span_confirmed(db, key(start), key(stop))
    gap = coverage.gap(db, key(start), key(stop), since)

    wanted = range(start, stop)
    missing = [p for p in wanted if latest.get(p, (0, 0))[0] < since]
    assert gap == (key(missing[0]) if missing else None)
    if not wanted:
        return
    if all(point in latest for point in wanted):
        oldest = min(latest[point][1] for point in wanted)
        assert confirmed is not None
        assert confirmed <= oldest  # intervals of one pass share the older time
    else:
        assert confirmed is None


def test_pages_of_one_pass_become_one_interval(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM covered")

    for point in range(POINTS):
        coverage.cover(db, key(point), key(point + 1), 7, 100 + point)

    rows = db.execute("SELECT * FROM covered").fetchall()
    assert rows == [(key(0), key(POINTS), 7, 100)]

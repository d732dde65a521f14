"""Tests of `gateway/extents.py`."""

from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.extents import Backing, BackingMap, Ranges
from backgate.gateway.provider import ObjectInfo

OFFSETS = st.integers(0, 60)
CHANGES = st.lists(st.tuples(st.booleans(), OFFSETS, OFFSETS))


@given(CHANGES, OFFSETS, OFFSETS)
def test_ranges_equal_a_set_of_offsets(
    changes: list[tuple[bool, int, int]], start: int, stop: int
) -> None:
    ranges, model = Ranges(), set[int]()

    for adds, first, last in changes:
        if adds:
            ranges.add(first, last)
            model |= set(range(first, last))
        else:
            ranges.remove(first, last)
            model -= set(range(first, last))

    asked = set(range(start, stop))
    assert {at for first, last in ranges for at in range(first, last)} == model
    assert ranges.total == len(model)
    assert all(first < last for first, last in ranges)
    stops = [last for _, last in ranges]
    assert all(last < first for last, (first, _) in zip(stops, list(ranges)[1:], strict=False))
    assert {at for one in ranges.within(start, stop) for at in range(*one)} == asked & model
    assert {at for one in ranges.gaps(start, stop) for at in range(*one)} == asked - model
    assert ranges.covers(start, stop) == (asked <= model)


@given(st.lists(st.tuples(st.booleans(), OFFSETS, OFFSETS)), OFFSETS, OFFSETS)
def test_a_backing_map_says_where_the_latest_bytes_lie(
    changes: list[tuple[bool, int, int]], start: int, stop: int
) -> None:
    backing, model = BackingMap(), dict[int, tuple[str, int]]()

    for number, (puts, first, last) in enumerate(changes):
        if puts:
            info = ObjectInfo(str(number), 100, 0, "")
            backing.put(Backing(first, last, info, 7))
            model |= {at: (info.key, 7 + at - first) for at in range(first, last)}
        elif first < last:
            backing.remove(first, last)
            model = {at: held for at, held in model.items() if not first <= at < last}

    found = {
        at: (one.info.key, one.offset + at - one.start)
        for one in backing.within(start, stop)
        for at in range(one.start, one.stop)
    }
    assert found == {at: held for at, held in model.items() if start <= at < stop}

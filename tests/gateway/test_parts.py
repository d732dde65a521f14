"""Tests of `gateway/parts.py`."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.extents import Backing, BackingMap, Ranges
from backgate.gateway.parts import FIRST_PART, PartPlan, composition
from backgate.gateway.profiles import profile, profiles
from backgate.gateway.provider import Limits, ObjectInfo
from backgate.gateway.units import GIB, MIB, TIB


def test_ten_thousand_parts_reach_the_largest_object() -> None:
    plan = PartPlan(Limits())

    parts = plan.parts(5 * TIB)

    assert plan.largest == 5 * TIB
    assert len(parts) <= 10_000
    assert parts[-1].stop == 5 * TIB
    assert max(part.size for part in parts) <= Limits().part_max


def test_a_short_file_has_small_parts() -> None:
    parts = PartPlan(Limits()).parts(1 * GIB)

    assert {part.size for part in parts} == {FIRST_PART}


@pytest.mark.parametrize("count", [1000, 10_000])
def test_a_store_with_fewer_parts_has_larger_ones(count: int) -> None:
    plan = PartPlan(Limits(part_count=count, object_max=5 * 10**12))

    assert plan.largest >= 4 * 10**12
    assert plan.part(count).stop >= plan.largest


@given(st.integers(1, 200 * GIB))
def test_parts_follow_one_another_and_are_found_by_offset(size: int) -> None:
    plan = PartPlan(Limits())
    number = plan.number_at(size - 1)

    part, following = plan.part(number), plan.part(number + 1)

    assert part.start < size <= part.stop == following.start
    assert part.size >= Limits().part_min


RANGES = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 400)), max_size=8)


@given(st.integers(1, 3000), RANGES, RANGES)
def test_a_composition_covers_the_file_in_parts_that_a_store_takes(
    size: int, written: list[tuple[int, int]], held: list[tuple[int, int]]
) -> None:
    limits = Limits(part_min=50, part_max=500, part_count=40, copy_max=300)
    local, backing = Ranges(), BackingMap()
    for start, length in held:
        stop = min(start + length, size)
        backing.put(Backing(start, stop, ObjectInfo(f"{start}", 10_000, 0, ""), 0))
    for start, length in written:
        local.add(start, min(start + length, size))

    parts = composition(size, local, backing, limits, 60)

    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert parts[0].start == 0
    assert parts[-1].stop == size
    assert all(one.stop == two.start for one, two in pairwise(parts))
    assert all(part.size >= limits.part_min for part in parts[:-1])
    assert len(parts) <= limits.part_count


def test_what_an_object_holds_unchanged_is_a_part_of_its_own() -> None:
    info = ObjectInfo("stored", 10 * GIB, 0, "")
    local = Ranges([(5 * GIB, 5 * GIB + 4096)])
    backing = BackingMap([Backing(0, 10 * GIB, info, 0)])

    parts = composition(10 * GIB, local, backing, Limits(), FIRST_PART)

    sent = [part for part in parts if local.within(part.start, part.stop)]
    assert sum(part.size for part in sent) <= FIRST_PART
    assert len(parts) < 20
    assert max(part.size for part in parts) <= Limits().copy_max
    assert sent[0].size > MIB


def test_where_parts_must_be_equal_they_do_not_grow() -> None:
    plan = PartPlan(Limits(equal_parts=True))

    parts = plan.parts(200 * GIB + 1)

    assert {part.size for part in parts[:-1]} == {plan.first}
    assert plan.largest >= 1 * TIB
    assert plan.single == PartPlan(Limits()).single


@pytest.mark.parametrize("name", profiles())
def test_no_part_is_beyond_what_a_provider_takes(name: str) -> None:
    limits = profile(name).abilities().limits
    plan = PartPlan(limits)
    last = plan.part(limits.part_count)

    for number in (1, 2, limits.part_count // 2, limits.part_count):
        assert limits.part_min <= plan.part(number).size <= limits.part_max
    assert plan.largest <= min(last.stop, limits.object_max)
    assert plan.largest >= 1 * TIB
    assert plan.single <= limits.put_max

"""What is done for each of many: some at a time, and one error."""

import pytest
import trio

from backgate.gateway.each import for_each
from backgate.gateway.errors import StoreError


async def test_only_so_many_are_under_way_and_all_are_done() -> None:
    under_way, most, done = 0, 0, set[int]()

    async def do(item: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.lowlevel.checkpoint()
        under_way -= 1
        done.add(item)

    await for_each(range(20), do, at_once=3)

    assert most == 3
    assert done == set(range(20))


async def test_after_an_error_no_more_are_begun_and_those_under_way_end() -> None:
    begun, ended = list[str](), list[str]()
    failed = trio.Event()

    async def do(item: str) -> None:
        begun.append(item)
        if len(begun) == 2:
            failed.set()
            raise StoreError(item)
        await failed.wait()
        await trio.lowlevel.checkpoint()
        ended.append(item)

    with pytest.raises(StoreError) as caught:
        await for_each(["a", "b", "c", "d"], do, at_once=2)

    assert str(caught.value) == begun[1]
    assert ended == [begun[0]]
    assert len(begun) == 2

"""Tests of `gateway/turns.py`: one gateway makes a directory where its marker decides nothing."""

import errno
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import CONFIG, SMALL, Open, make_directory, names, opened, rename, until, write

from backgate.gateway import turns
from backgate.gateway.errors import AlreadyThere, FileError
from backgate.gateway.provider import NO_METADATA, Abilities, Body, ObjectInfo
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.store import ObjectStore
from backgate.gateway.turns import Turn

SHARED = msgspec.structs.replace(CONFIG, writers="shared")
TOGETHER = 0.2  # seconds within which a second writer of a marker is one at the same time


class Directories(Memory):
    """A store of objects in directories: who makes one while another does hears nothing of that."""

    is_instant = False

    def __init__(self) -> None:
        super().__init__("memory:test", Abilities(limits=SMALL, markers_are_objects=False))
        self._making = threading.Barrier(2)

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        if not (if_absent and key.endswith("/")):
            return super().put(key, body, metadata, if_absent=if_absent)
        if self.page(key, limit=1).objects:
            raise AlreadyThere(f"{key!r} is there", key=key)
        try:
            self._making.wait(TOGETHER)
        except threading.BrokenBarrierError:
            with suppress(threading.BrokenBarrierError):
                self._making.reset()
        return super().put(key, body)


@asynccontextmanager
async def two(folder: Path, provider: Memory) -> AsyncIterator[tuple[Open, Open]]:
    async with (
        opened(folder / "one", provider, SHARED, patience=10) as one,
        opened(folder / "other", provider, SHARED, patience=10) as other,
    ):
        yield one, other


async def outcomes(*works: object) -> list[int]:
    """Run all at once; return the errno of each, 0 for one that succeeded, sorted."""
    found: list[int] = []

    async def run(work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except FileError as error:
            found.append(error.errno)
        else:
            found.append(0)

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(run, work)
    return sorted(found)


def turns_in(provider: Memory) -> list[str]:
    return [info.key for info in provider.page(turns.TURNS).objects]


async def test_of_two_who_make_a_directory_at_once_one_succeeds(tmp_path: Path) -> None:
    provider = Directories()
    async with two(tmp_path, provider) as both:
        made = await outcomes(*(make_directory(each.tree, "x.lock") for each in both))

        assert made == [0, errno.EEXIST]
        await until(lambda: not turns_in(provider))
        assert [await names(each.tree) for each in both] == [["x.lock"], ["x.lock"]]


async def test_of_two_who_rename_a_directory_to_one_name_one_succeeds(tmp_path: Path) -> None:
    provider = Directories()
    async with two(tmp_path, provider) as both:
        for number, each in enumerate(both):
            await make_directory(each.tree, f"lock.{number}")
            await write(each.tree, f"lock.{number}/{number}", b"")

        made = await outcomes(
            *(rename(each.tree, f"lock.{number}", "lock") for number, each in enumerate(both))
        )

        assert made == [0, errno.ENOTEMPTY]
        await until(lambda: not turns_in(provider))


async def test_who_made_a_directory_and_had_no_answer_has_it(tmp_path: Path) -> None:
    provider = Directories()
    async with opened(tmp_path, provider, SHARED, patience=10) as one:
        provider.faults = [Fault(verb="put", key="x.lock/", is_lost=True, times=1)]
        await make_directory(one.tree, "x.lock")

        assert await names(one.tree) == ["x.lock"]


async def test_a_turn_that_a_crash_cut_off_ends_at_the_next_start(tmp_path: Path) -> None:
    provider = Directories()
    with trio.CancelScope() as running:
        async with (
            opened(tmp_path / "one", provider, SHARED) as one,
            one.spool.turns.turn("x.lock/"),
        ):
            running.cancel()  # what is done behind is cut off with all the rest
            await trio.lowlevel.checkpoint()
    left = turns_in(provider)

    async with opened(tmp_path / "one", provider, SHARED, patience=10) as one:
        await make_directory(one.tree, "x.lock")
        await until(lambda: not turns_in(provider))

    assert left == [turns.name_of_turn("x.lock/")]


async def left_by_another(folder: Path, provider: Memory, key: str) -> Turn:
    """Have a gateway die in its turn."""
    with trio.CancelScope() as running:
        async with opened(folder, provider, SHARED) as one, one.spool.turns.turn(key):
            running.cancel()
            await trio.lowlevel.checkpoint()
    (turn,) = await turns.turns_in(ObjectStore(provider))
    return turn


async def test_who_waits_for_a_turn_that_does_not_end_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "WAITS", 0.2)
    provider = Directories()
    turn = await left_by_another(tmp_path / "gone", provider, "x y.lock/")
    assert (turn.said.directory, turn.said.host) == ("x y.lock/", socket.gethostname())
    async with opened(tmp_path / "one", provider, SHARED, patience=10) as one:
        told = f"on '{socket.gethostname()}' .*: backgate turns end test 'repository/x y.lock'"
        with pytest.raises(FileError, match=told) as caught:
            await make_directory(one.tree, "x y.lock")

        assert caught.value.errno == errno.EBUSY
        assert await names(one.tree) == []
        await turns.end(one.store, turn)
        await make_directory(one.tree, "x y.lock")


@pytest.mark.parametrize("is_exact", [False, True])
async def test_a_turn_that_began_since_is_not_ended(tmp_path: Path, *, is_exact: bool) -> None:
    provider = Directories()
    provider.abilities = replace(provider.abilities, conditional_delete=is_exact)
    store = ObjectStore(provider)
    old = await left_by_another(tmp_path / "gone", provider, "x.lock/")
    provider.delete([old.info.key])
    new = await left_by_another(tmp_path / "other", provider, "x.lock/")

    await turns.end(store, old)

    assert await turns.turns_in(store) == [new]
    await turns.end(store, new)
    assert await turns.turns_in(store) == []


async def test_whatever_lies_among_the_turns_is_told_as_far_as_it_is_one() -> None:
    provider = Directories()
    provider.put(f"{turns.TURNS}empty", b"", {"backgate-taken": "gone/rename-1"})
    provider.put(f"{turns.TURNS}large", b"{" * (1 << 20))
    provider.put(f"{turns.TURNS}odd", b'{"directory": 7}')

    found = await turns.turns_in(ObjectStore(provider))

    assert [one.said for one in found] == 3 * [turns.Said()]
    assert [one.gateway for one in found] == ["gone", "", ""]


async def test_where_only_one_gateway_writes_no_turn_is_taken(tmp_path: Path) -> None:
    provider = Directories()
    async with opened(tmp_path, provider, patience=10) as one:
        await make_directory(one.tree, "d")

        assert [key for verb, key in provider.requests if verb == "put"] == ["d/"]

"""Tests of `gateway/renames.py`: what a rename leaves when the store fails in the middle of it."""

import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import (
    CONFIG,
    Open,
    entry_at,
    make_directory,
    memory,
    names,
    opened,
    read,
    until,
)
from support.writing import rename as renamed
from support.writing import write as written

from backgate.gateway import taking
from backgate.gateway.errors import Denied, NotFound, Unreachable
from backgate.gateway.providers.memory import Fault, Memory

SHARED = msgspec.structs.replace(CONFIG, writers="shared")


def all_keys(provider: Memory) -> list[str]:
    return [info.key for info in provider.page().objects]


async def with_directory(repository: Open) -> None:
    await make_directory(repository.tree, "old")
    for number in range(3):
        await written(repository.tree, f"old/{number}", b"%d" % number)


def denied() -> Exception:
    return Denied("it is retained")


async def test_originals_that_cannot_be_deleted_are_told_of_and_stay(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await with_directory(repository)
        provider.faults = [Fault(verb="delete", key="old/1", error=denied)]

        told = "'old/' was copied to 'new/', and 1 of 4 originals could not be deleted: it is ret"
        with pytest.raises(Denied, match=re.escape(told)):
            await renamed(repository.tree, "old", "new")

        assert await names(repository.tree, "new") == ["0", "1", "2"]
        assert await names(repository.tree, "old") == ["1"]
        assert await read(repository.tree, "old/1") == b"1"
    left = all_keys(provider)
    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()
        assert all_keys(provider) == left  # the tool was told: nothing goes on by itself


async def test_a_copy_whose_answer_was_lost_is_taken_back(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await with_directory(repository)
        before = all_keys(provider)
        for lost in ("old/1", "old/"):
            provider.faults = [Fault(verb="copy", key=lost, is_lost=True)]

            with pytest.raises(Unreachable):
                await renamed(repository.tree, "old", "new")

            assert all_keys(provider) == before


async def test_an_empty_directory_stays_when_a_rename_onto_it_fails(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await with_directory(repository)
        await make_directory(repository.tree, "new")
        before = all_keys(provider)
        provider.faults = [Fault(verb="copy", key="old/1", error=lambda: Unreachable("away"))]

        with pytest.raises(Unreachable):
            await renamed(repository.tree, "old", "new")

        assert all_keys(provider) == before
        assert (await entry_at(repository.tree, "new")).is_directory


async def test_no_lock_stays_when_the_answer_that_made_it_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "RETRY_AFTER", 0.01)
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository:
        await with_directory(repository)
        before = all_keys(provider)
        provider.faults = [
            Fault(verb="copy", key="old/", is_lost=True),
            Fault(verb="put", key="new/", skip=1, is_lost=True),
        ]

        with pytest.raises(Unreachable):
            await renamed(repository.tree, "old", "new")

        await until(lambda: all_keys(provider) == before)
        provider.faults = []
        await renamed(repository.tree, "old", "new")
        assert all_keys(provider) == [key.replace("old", "new") for key in before]


@pytest.mark.parametrize("no_replace", [False, True])
async def test_a_file_that_another_gateway_took_away_is_not_renamed(
    tmp_path: Path, *, no_replace: bool
) -> None:
    provider = memory()
    async with (
        opened(tmp_path / "one", provider, SHARED) as one,
        opened(tmp_path / "other", provider, SHARED) as other,
    ):
        await written(one.tree, "job", b"work")
        assert await names(other.tree) == ["job"]
        await renamed(one.tree, "job", "mine")

        with pytest.raises(NotFound):
            await renamed(other.tree, "job", "theirs", no_replace=no_replace)

        await until(lambda: all_keys(provider) == ["mine"])


async def test_a_rename_whose_journal_fails_is_not_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await with_directory(repository)
        before = all_keys(provider)

        async def failing() -> None:
            monkeypatch.undo()
            raise OSError("the disk")

        monkeypatch.setattr(repository.spool.journal, "synchronize", failing)
        with pytest.raises(OSError, match="the disk"):
            await renamed(repository.tree, "old", "new")

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()
        assert all_keys(provider) == before


async def test_what_another_gateway_made_of_the_old_name_is_not_deleted(tmp_path: Path) -> None:
    provider = memory()
    async with (
        opened(tmp_path / "one", provider, SHARED, patience=10) as one,
        opened(tmp_path / "other", provider, SHARED) as other,
    ):
        await written(one.tree, "lock", b"one")
        provider.faults = [Fault(verb="delete", is_lost=True, times=1)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renamed, one.tree, "lock", "old")
            await until(lambda: all_keys(provider) == ["old"])
            await written(other.tree, "lock", b"other")

        assert other.content("lock") == b"other"
        assert other.content("old") == b"one"


EXACT = pytest.mark.parametrize("is_exact", [False, True], ids=["by name", "by version"])


@asynccontextmanager
async def killed_in_rename(
    folder: Path, provider: Memory, fault: Fault, state: set[str]
) -> AsyncIterator[Open]:
    """Rename `old` to `new`; kill the gateway, which `fault` holds up, once the store has `state`.

    Gives another gateway. When the context ends, the first one has started again and recovered.
    """
    provider.faults = [fault]
    with trio.CancelScope() as running:
        async with (
            opened(folder / "one", provider, SHARED, patience=60) as one,
            trio.open_nursery() as nursery,
        ):
            provider.requests.clear()
            nursery.start_soon(renamed, one.tree, "old", "new")
            await until(
                lambda: (
                    (fault.verb, fault.key) in provider.requests
                    and set(all_keys(provider)) == state
                )
            )
            running.cancel()
    provider.faults = []
    async with opened(folder / "other", provider, SHARED) as other:
        yield other
    async with opened(folder / "one", provider, SHARED) as one:
        with trio.fail_after(60):
            await one.spool.is_recovered.wait()
        await until(lambda: not one.spool.journal.state.moves)
        for key in provider_files(provider):
            assert await read(one.tree, key) == one.content(key)


def provider_files(provider: Memory) -> list[str]:
    return [key for key in all_keys(provider) if not key.endswith("/")]


def away(verb: str, key: str) -> Fault:
    return Fault(verb=verb, key=key, error=lambda: Unreachable("away"))


def contents(provider: Memory) -> dict[str, bytes]:
    return {key: provider.get(key, 0, 99) for key in provider_files(provider)}


OURS = {f"{number}": b"%d" % number for number in range(3)}
AMID_COPIES = {"old/", "old/0", "old/1", "old/2", "new/", "new/0", "new/2"}
AMID_DELETES = {"old/1", "new/", "new/0", "new/1", "new/2"}


@EXACT
@pytest.mark.parametrize("theirs", ["new/0", "new/1", "new/theirs"])
async def test_a_rename_that_a_crash_cut_off_is_taken_back_when_another_has_put_something_there(
    tmp_path: Path, theirs: str, *, is_exact: bool
) -> None:
    provider = memory(conditional_delete=is_exact)
    async with opened(tmp_path / "one", provider, SHARED) as one:
        await with_directory(one)
    fault = away("copy", "old/1")
    async with killed_in_rename(tmp_path, provider, fault, AMID_COPIES) as other:
        await written(other.tree, theirs, b"other")

    ours = {f"old/{name}": data for name, data in OURS.items()}
    assert contents(provider) == ours | {theirs: b"other"}


@EXACT
async def test_what_another_makes_of_a_rename_that_a_crash_cut_off_stays(
    tmp_path: Path, *, is_exact: bool
) -> None:
    provider = memory(conditional_delete=is_exact)
    async with opened(tmp_path / "one", provider, SHARED) as one:
        await with_directory(one)
    theirs = dict.fromkeys(("old/0", "old/theirs", "new/2", "new/theirs"), b"other")
    fault = away("delete", "old/1")
    async with killed_in_rename(tmp_path, provider, fault, AMID_DELETES) as other:
        for name, data in theirs.items():
            await written(other.tree, name, data)

    ours = {f"new/{name}": data for name, data in OURS.items()}
    assert contents(provider) == ours | theirs


@EXACT
@pytest.mark.parametrize("verb", ["copy", "delete"])
async def test_a_rename_that_a_crash_cut_off_and_nobody_disturbed_is_finished(
    tmp_path: Path, verb: str, *, is_exact: bool
) -> None:
    provider = memory(conditional_delete=is_exact)
    async with opened(tmp_path / "one", provider, SHARED) as one:
        await with_directory(one)
        await make_directory(one.tree, "old/empty")
    empty = {"copy": {"old/empty/", "new/empty/"}, "delete": {"new/empty/"}}[verb]
    state = {"copy": AMID_COPIES, "delete": AMID_DELETES}[verb] | empty
    fault = away(verb, "old/1")
    async with killed_in_rename(tmp_path, provider, fault, state):
        pass

    assert all_keys(provider) == ["new/", "new/0", "new/1", "new/2", "new/empty/"]
    assert contents(provider) == {f"new/{name}": data for name, data in OURS.items()}


@EXACT
@pytest.mark.parametrize("name", ["old", "new"])
async def test_a_file_that_another_writes_after_a_crash_amid_a_rename_stays(
    tmp_path: Path, name: str, *, is_exact: bool
) -> None:
    provider = memory(conditional_delete=is_exact)
    async with opened(tmp_path / "one", provider, SHARED) as one:
        await written(one.tree, "old", b"one")
    fault = away({"old": "delete", "new": "copy"}[name], "old")
    state = {"old": {"old", "new"}, "new": {"old"}}[name]
    async with killed_in_rename(tmp_path, provider, fault, state) as other:
        await written(other.tree, name, b"other")

    assert contents(provider) == {"old": b"one", "new": b"one"} | {name: b"other"}


async def test_a_file_that_another_replaces_while_it_is_renamed_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider = memory(conditional_delete=True)
    async with (
        opened(tmp_path / "one", provider, SHARED) as one,
        opened(tmp_path / "other", provider, SHARED) as other,
    ):
        await written(one.tree, "old", b"one")
        slow = Fault(verb="delete", key="old", gate=threading.Event())
        provider.faults = [slow]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renamed, one.tree, "old", "new")
            await until(lambda: ("delete", "old") in provider.requests)
            await written(other.tree, "old", b"other")
            assert slow.gate is not None
            slow.gate.set()

        assert contents(provider) == {"old": b"other", "new": b"one"}
        assert await names(one.tree) == ["new", "old"]
        assert "'old' stays: another gateway changed it" in caplog.text


@EXACT
async def test_what_is_in_a_directory_is_deleted_before_it(
    tmp_path: Path, *, is_exact: bool
) -> None:
    abilities = {"markers_are_objects": False, "conditional_delete": is_exact}
    provider = memory(**abilities)
    async with opened(tmp_path, provider, SHARED) as one:
        for name in ("old", "old/sub", "old/sub/empty"):
            await make_directory(one.tree, name)
        await written(one.tree, "old/sub/file", b"content")
        await written(one.tree, "old/zzz", b"content")
        provider.requests.clear()
        await renamed(one.tree, "old", "new")

    deleted = [key for verb, key in provider.requests if verb == "delete" and key[:3] == "old"]
    assert len(deleted) == 5
    for number, key in enumerate(deleted):
        assert not any(later.startswith(key) for later in deleted[number + 1 :])

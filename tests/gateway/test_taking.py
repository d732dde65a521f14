"""Tests of `gateway/taking.py`: among the gateways of one store, one has a new name."""

import errno
import threading
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import (
    CONFIG,
    SMALL,
    Open,
    create,
    entry_at,
    make_directory,
    memory,
    names,
    opened,
    place,
    read,
    rename,
    until,
    write,
)

from backgate.gateway import deletions, pending, recovery, taking
from backgate.gateway.delete_batch import Look
from backgate.gateway.errors import AlreadyThere, FileError, Unreachable, Unsupported
from backgate.gateway.provider import NO_METADATA, Abilities, Body, ObjectInfo
from backgate.gateway.providers.memory import Fault, Memory

SHARED = msgspec.structs.replace(CONFIG, writers="shared")
GIVEN_BACK_WITHIN = 120.0  # seconds; it is tried again and again
HERE = msgspec.structs.replace(SHARED, locks="gateway")


@asynccontextmanager
async def two(folder: Path, provider: Memory) -> AsyncIterator[tuple[Open, Open]]:
    async with (
        opened(folder / "one", provider, SHARED) as one,
        opened(folder / "other", provider, SHARED) as other,
    ):
        yield one, other


async def lock_with_a_file(repository: Open, path: str) -> None:
    file = await create(repository, path, exclusive=True)
    await file.write_at(0, b"me")
    await file.flush()
    await file.release()


async def lock_as_borg(repository: Open, path: str, name: str) -> None:
    """A directory with a file of one's own in it, renamed to the name of the lock."""
    await make_directory(repository.tree, f"{path}.{name}")
    await write(repository.tree, f"{path}.{name}/{name}", b"")
    await rename(repository.tree, f"{path}.{name}", path)


async def refused(work: object) -> int:
    with pytest.raises(FileError) as caught:
        await work  # type: ignore[misc]
    return caught.value.errno


async def test_a_file_is_made_exclusively_by_one_gateway_only(tmp_path: Path) -> None:
    async with two(tmp_path, memory()) as (one, other):
        assert await names(other.tree) == []

        file = await create(one, "lock", exclusive=True)

        assert await refused(create(other, "lock", exclusive=True)) == errno.EEXIST
        assert await read(other.tree, "lock") == b""  # as the store has it until the close
        await file.write_at(0, b"one")
        await file.flush()
        await file.release()
        assert one.content("lock") == b"one"


async def test_of_many_who_lock_at_once_one_succeeds(tmp_path: Path) -> None:
    won: list[Open] = []

    async def lock(repository: Open) -> None:
        try:
            await lock_with_a_file(repository, "lock")
        except FileError as error:
            assert error.errno == errno.EEXIST
        else:
            won.append(repository)

    async with two(tmp_path, memory()) as both, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(lock, both[number % 2])

    assert len(won) == 1


async def test_a_lock_that_is_released_is_free_at_once_for_all(tmp_path: Path) -> None:
    async with two(tmp_path, memory()) as (one, other):
        await lock_with_a_file(one, "lock")
        await make_directory(one.tree, "lock.d")
        assert await names(other.tree) == ["lock", "lock.d"]

        await one.tree.unlink(*await place(one.tree, "lock"))
        await one.tree.remove_directory(*await place(one.tree, "lock.d"))

        await lock_with_a_file(other, "lock")
        await make_directory(other.tree, "lock.d")
        assert await refused(lock_with_a_file(one, "lock")) == errno.EEXIST
        assert await refused(make_directory(one.tree, "lock.d")) == errno.EEXIST


async def test_names_that_tools_make_up_are_asked_for_by_nobody(tmp_path: Path) -> None:
    provider = memory(conditional_put=False)
    async with opened(tmp_path, provider, SHARED) as repository:
        for name in ("pack-tmp-123", ".file.aB3xY9"):
            await lock_with_a_file(repository, name)
            await rename(repository.tree, name, "published")

        assert [verb for verb, _ in provider.requests].count("put") == 2


async def test_what_was_taken_and_never_closed_is_given_back_after_a_crash(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository:
        await create(repository, "empty", exclusive=True)
        file = await create(repository, "half", exclusive=True)
        await file.write_at(0, b"half")
        assert repository.stored_keys() == ["empty", "half"]

    async with opened(tmp_path, provider, SHARED) as repository:
        await repository.spool.drained()

        assert repository.stored_keys() == []
        assert [one.key for one in repository.spool.pending()] == ["half"]
        await repository.spool.retry("half")
        assert repository.content("half") == b"half"
    async with opened(tmp_path, provider, SHARED) as repository:
        await repository.spool.drained()
        assert repository.stored_keys() == ["half"]


async def test_what_another_gateway_has_made_of_it_is_not_given_back(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository:
        await create(repository, "lock", exclusive=True)
        await create(repository, "later", exclusive=True)
    provider.put("lock", b"")  # somebody broke the lock, and has it now
    provider.put("later", b"of another")

    async with opened(tmp_path, provider, SHARED) as repository:
        await repository.spool.drained()

        assert repository.stored_keys() == ["later", "lock"]


async def test_an_empty_lock_whose_close_returned_survives_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository:
        file = await create(repository, "lock", exclusive=True)
        await file.flush()
        await file.release()
    for module in (recovery, pending):
        monkeypatch.setattr(module, "boot_id", lambda: "another")

    async with opened(tmp_path, provider, SHARED) as repository:
        await repository.spool.drained()

        assert repository.stored_keys() == ["lock"]


async def test_a_lost_answer_takes_no_name_for_good(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository:
        gone = Fault(verb="put", key="lock", error=lambda: Unreachable("lost"), times=2)
        provider.faults = [gone]
        with pytest.raises(Unreachable):
            await create(repository, "lock", exclusive=True)
        provider.faults = []

        await lock_with_a_file(repository, "lock")


async def test_a_directory_is_renamed_onto_no_directory_of_another_gateway(tmp_path: Path) -> None:
    async with two(tmp_path, memory()) as (one, other):
        assert await names(other.tree) == []
        await lock_as_borg(one, "lock", "one")

        assert await refused(lock_as_borg(other, "lock", "other")) == errno.ENOTEMPTY

        assert one.stored_keys() == ["lock.other/other", "lock/one"]
        await one.tree.unlink(*await place(one.tree, "lock/one"))
        await one.tree.remove_directory(*await place(one.tree, "lock"))
        await rename(other.tree, "lock.other", "lock")
        assert one.stored_keys() == ["lock/other"]


async def test_a_directory_without_a_marker_is_no_free_name(tmp_path: Path) -> None:
    provider = memory()
    provider.put("lock/one", b"")
    async with opened(tmp_path, provider, SHARED) as repository:
        await make_directory(repository.tree, "mine")
        provider.put("later/one", b"")

        assert await refused(rename(repository.tree, "mine", "later")) == errno.ENOTEMPTY
        assert await refused(make_directory(repository.tree, "lock")) == errno.EEXIST


async def test_a_rename_that_must_not_replace_asks_the_store(tmp_path: Path) -> None:
    async with two(tmp_path, memory()) as (one, other):
        await write(other.tree, "stored", b"stored")
        assert await names(other.tree) == ["stored"]
        await write(one.tree, "target", b"one")
        await write(other.tree, "open.tmp", b"staged")

        for source in ("stored", "open.tmp"):
            with pytest.raises((FileError, AlreadyThere)):
                await rename(other.tree, source, "target", no_replace=True)
            await rename(other.tree, source, f"free-{source}", no_replace=True)

        assert one.content("target") == b"one"
        assert one.content("free-stored") == b"stored"


class Killer(trio.abc.Instrument):
    """Ends everything after so many steps of any task, as a crash does."""

    def __init__(self, steps: int) -> None:
        self.scope, self._left = trio.CancelScope(), steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.scope.cancel()


@pytest.mark.slow
async def test_a_crash_in_locking_merges_no_two_locks(tmp_path: Path) -> None:
    steps, is_locked = 1, False
    while not is_locked:
        provider, folder = memory(), tmp_path / str(steps)
        killer = Killer(steps)
        async with opened(folder / "other", provider, SHARED) as other:
            with killer.scope:
                async with opened(folder / "one", provider, SHARED) as one:
                    trio.lowlevel.add_instrument(killer)
                    try:
                        await lock_as_borg(one, "lock", "one")
                        is_locked = True
                    finally:
                        trio.lowlevel.remove_instrument(killer)
            has_other = True
            try:
                await lock_as_borg(other, "lock", "other")
            except FileError as error:
                assert error.errno == errno.ENOTEMPTY
                has_other = False

            async with opened(folder / "one", provider, SHARED) as one:
                await one.spool.drained()
                held = [key for key in one.stored_keys() if key.startswith("lock/")]

            assert held in ([["lock/other"]] if has_other else [["lock/one"], []]), steps
            assert not has_other or not is_locked
            if not held:  # taken for a rename that was never told: given back
                await rename(other.tree, "lock.other", "lock")
        steps += 1 + steps // 8


async def test_where_the_store_ignores_conditions_locks_are_refused_and_say_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, memory(conditional_put=False), SHARED) as repository:
        assert "locks are refused: other gateways write here too" in caplog.text
        caplog.clear()
        for name in ("data", "locks"):
            await make_directory(repository.tree, name)
        await write(repository.tree, "data/file", b"content")

        for work in (
            create(repository, "lock", exclusive=True),
            make_directory(repository.tree, "index.lock"),
            rename(repository.tree, "data", "lock.exclusive"),
        ):
            with pytest.raises(Unsupported, match="it would lock nobody out; write locks ="):
                await work

        assert repository.stored_keys() == ["data/file"]
        assert repository.spool.pending() == []
        assert (await entry_at(repository.tree, "data")).is_directory


async def test_an_administrator_may_say_that_nobody_else_asks(tmp_path: Path) -> None:
    provider = memory(conditional_put=False)
    async with opened(tmp_path, provider, HERE) as repository:
        await lock_with_a_file(repository, "lock")
        await lock_as_borg(repository, "lock.exclusive", "one")

        assert await refused(create(repository, "lock", exclusive=True)) == errno.EEXIST
        assert await refused(lock_as_borg(repository, "lock.exclusive", "two")) == errno.ENOTEMPTY


async def test_where_only_one_gateway_writes_nothing_is_asked(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, CONFIG) as repository:
        await lock_with_a_file(repository, "file")

        assert [verb for verb, _ in provider.requests].count("put") == 1


async def test_a_file_survives_a_rename_whose_deletion_has_no_answer(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository:
        await write(repository.tree, "file", b"content")
        provider.faults = [Fault(verb="delete", key="file", is_lost=True)]

        with pytest.raises(Unreachable):
            await rename(repository.tree, "file", "new", no_replace=True)
        await repository.spool.drained()

        assert repository.content("new") == b"content"


@pytest.mark.parametrize("verb", ["put", "page", "copy"])
async def test_a_rename_that_fails_leaves_no_lock_behind(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "RETRY_AFTER", 0.01)
    provider = memory()
    async with two(tmp_path, provider) as (one, other):
        await make_directory(one.tree, "lock.one")
        await write(one.tree, "lock.one/one", b"")
        provider.faults = [Fault(verb=verb, key="lock*", is_lost=verb == "put")]
        if verb != "put":
            provider.faults[0].error = lambda: Unreachable("away")
        provider.faults += [Fault(verb="head", key="lock/", error=lambda: Unreachable("away"))]
        with pytest.raises(Unreachable):
            await rename(one.tree, "lock.one", "lock")
        provider.faults = []

        with trio.fail_after(GIVEN_BACK_WITHIN):
            while await names(one.tree) != ["lock.one"]:
                await trio.lowlevel.checkpoint()
        await lock_as_borg(other, "lock", "other")


async def test_a_link_that_fails_leaves_no_file_behind(tmp_path: Path) -> None:
    provider = memory()
    mirror = msgspec.structs.replace(SHARED, kind="mirror")
    async with opened(tmp_path, provider, mirror) as repository:
        tree = repository.tree
        await write(tree, "file", b"content")
        provider.faults = [Fault(verb="copy", error=lambda: Unreachable("away"))]
        with pytest.raises(Unreachable):
            await tree.link(await entry_at(tree, "file"), *await place(tree, "link"))
        provider.faults = []
        await until(lambda: repository.stored_keys() == ["file"])

        assert await names(tree) == ["file"]
        await tree.link(await entry_at(tree, "file"), *await place(tree, "link"))
        assert repository.content("link") == b"content"


async def test_what_an_earlier_run_made_is_not_given_back(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository:
        file = await create(repository, "lock", exclusive=True)
        await file.flush()
        await file.release()

    async with opened(tmp_path, provider, SHARED) as repository:
        provider.faults = [Fault(verb="put", key="lock", error=lambda: Unreachable("away"))]
        with pytest.raises(Unreachable):
            await create(repository, "lock", exclusive=True)
        provider.faults = []
        await trio.testing.wait_all_tasks_blocked()

        assert repository.stored_keys() == ["lock"]


async def test_what_a_person_stores_meanwhile_stays_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "RETRY_AFTER", 0.01)
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository:
        file = await create(repository, "file", exclusive=True)
        await file.write_at(0, b"half")
    full = Fault(verb="put", key="file", error=lambda: Unreachable("away"))
    away = Fault(verb="head", key="file", error=lambda: Unreachable("away"))

    provider.faults = [away, full]
    async with opened(tmp_path, provider, SHARED) as repository:
        with pytest.raises(Unreachable):
            await repository.spool.retry("file")
        provider.faults = [full]
        with trio.fail_after(120):
            await repository.spool.is_recovered.wait()
    provider.faults = []

    async with opened(tmp_path, provider, SHARED) as repository:
        await repository.spool.drained()
        assert repository.content("file") == b"half"


async def test_what_is_written_while_a_name_is_given_back_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory()
    async with opened(tmp_path, provider, SHARED) as repository, trio.open_nursery() as nursery:
        delete, is_over = repository.store.delete, trio.Event()

        async def delete_late(
            keys: Sequence[str], look: Look, etags: Mapping[str, str]
        ) -> Mapping[str, Exception]:
            nursery.start_soon(write, repository.tree, "lock", b"mine")  # no O_EXCL
            await trio.testing.wait_all_tasks_blocked()
            try:
                return await delete(keys, look, etags)
            finally:
                is_over.set()

        monkeypatch.setattr(repository.store, "delete", delete_late)
        provider.faults = [Fault(verb="put", key="lock", is_lost=True, times=1)]
        with pytest.raises(Unreachable):
            await create(repository, "lock", exclusive=True)
        await is_over.wait()
        await trio.testing.wait_all_tasks_blocked()

        assert repository.stored_keys() == ["lock"]
        assert repository.content("lock") == b"mine"


async def test_a_directory_that_another_tool_made_is_not_changed_by_who_wants_to_make_it(
    tmp_path: Path,
) -> None:
    provider = memory()
    provider.put("shared/one", b"")
    async with opened(tmp_path, provider, SHARED) as repository:
        assert await names(repository.tree) == ["shared"]
        before = await entry_at(repository.tree, "shared")

        assert await refused(make_directory(repository.tree, "shared")) == errno.EEXIST

        assert [info.key for info in provider.page().objects] == ["shared/one"]
        assert await entry_at(repository.tree, "shared") == before


async def test_a_lock_that_another_took_is_not_deleted_by_who_had_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "SAME_WITHIN", 0)  # who waits for a lock is slower than a test
    provider = memory()
    async with (
        opened(tmp_path / "one", provider, SHARED, patience=10) as one,
        opened(tmp_path / "other", provider, SHARED) as other,
    ):
        await lock_with_a_file(one, "lock")
        await make_directory(one.tree, "lock.d")
        provider.faults = [Fault(verb="delete", is_lost=True, times=2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.tree.unlink, *await place(one.tree, "lock"))
            nursery.start_soon(one.tree.remove_directory, *await place(one.tree, "lock.d"))
            await until(lambda: not provider.page().objects)

            await lock_with_a_file(other, "lock")
            await make_directory(other.tree, "lock.d")

        assert [info.key for info in provider.page().objects] == ["lock", "lock.d/"]


async def test_what_is_deleted_is_asked_for_until_it_is_gone(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, SHARED, patience=10) as repository:
        await lock_with_a_file(repository, "lock")
        await make_directory(repository.tree, "lock.d")
        away = Fault(verb="delete", error=lambda: Unreachable("away"), times=2)
        provider.faults = [away]

        await repository.tree.unlink(*await place(repository.tree, "lock"))
        await repository.tree.remove_directory(*await place(repository.tree, "lock.d"))

        assert away.times == 0
        assert not provider.page().objects


async def test_a_name_that_was_given_back_and_taken_by_another_is_not_given_back_again(
    tmp_path: Path,
) -> None:
    provider = memory()
    async with opened(tmp_path / "one", provider, SHARED) as one:
        await create(one, "lock", exclusive=True)
    provider.faults = [Fault(verb="delete", key="lock", is_lost=True, times=1)]
    async with (
        opened(tmp_path / "other", provider, SHARED) as other,
        opened(tmp_path / "one", provider, SHARED, patience=10) as one,
    ):
        await until(lambda: not provider.page().objects)
        await lock_with_a_file(other, "lock")
        await one.spool.is_recovered.wait()

        assert other.content("lock") == b"me"


class Versions(Memory):
    """A store in which each version of an object has an etag of its own, as Azure does."""

    def __init__(self) -> None:
        super().__init__("memory:test", Abilities(limits=SMALL, conditional_delete=True))

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        with self._request("put", key):
            data = bytes(body)
            return self._store(key, data, uuid.uuid4().hex, metadata, if_absent=if_absent)


async def test_what_another_makes_between_a_look_and_the_delete_stays(tmp_path: Path) -> None:
    provider = Versions()
    async with opened(tmp_path / "one", provider, SHARED) as one:
        await create(one, "lock", exclusive=True)
    late = Fault(verb="delete", key="lock", times=1, gate=threading.Event())
    provider.faults = [late]
    async with (
        opened(tmp_path / "other", provider, SHARED) as other,
        opened(tmp_path / "one", provider, SHARED) as one,
    ):
        await until(lambda: ("delete", "lock") in provider.requests)  # it is to be given back
        await other.tree.unlink(*await place(other.tree, "lock"))
        await lock_with_a_file(other, "lock")
        assert late.gate is not None
        late.gate.set()
        await one.spool.is_recovered.wait()

        assert other.content("lock") == b"me"
        assert await read(one.tree, "lock") == b"me"


async def test_what_another_makes_between_a_look_and_the_next_delete_stays(tmp_path: Path) -> None:
    provider = Versions()
    late = Fault(verb="delete", key="lock", skip=1, times=1, gate=threading.Event())
    lost = Fault(verb="delete", key="lock", times=1, error=lambda: Unreachable("away"))
    async with (
        opened(tmp_path / "one", provider, SHARED, patience=60) as one,
        opened(tmp_path / "other", provider, SHARED) as other,
        trio.open_nursery() as nursery,
    ):
        await lock_with_a_file(one, "lock")
        provider.faults = [late, lost]
        nursery.start_soon(one.tree.unlink, *await place(one.tree, "lock"))
        await until(lambda: provider.requests.count(("delete", "lock")) == 2)
        await other.tree.unlink(*await place(other.tree, "lock"))
        await lock_with_a_file(other, "lock")
        assert late.gate is not None
        late.gate.set()

    assert provider.get("lock", 0, 9) == b"me"


async def test_a_lock_whose_directory_was_empty_for_long_is_held_by_one(tmp_path: Path) -> None:
    provider = memory()
    async with two(tmp_path, provider) as (one, other):
        for name, each in (("one", one), ("other", other)):
            await make_directory(each.tree, f"lock.{name}")
            await write(each.tree, f"lock.{name}/{name}", b"")
        slow = Fault(verb="copy", key="lock.one/one", gate=threading.Event())
        provider.faults = [slow]
        outcomes: list[int] = []

        async def lock() -> None:
            outcomes.append(await refused(rename(one.tree, "lock.one", "lock")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lock)
            await until(lambda: ("copy", "lock.one/one") in provider.requests)
            await other.tree.remove_directory(*await place(other.tree, "lock"))  # borg: it is stale
            await rename(other.tree, "lock.other", "lock")
            assert slow.gate is not None
            slow.gate.set()

        assert outcomes == [errno.ENOTEMPTY]
        assert await names(other.tree, "lock") == ["other"]
        assert await names(one.tree, "lock") == ["other"]
        assert await names(one.tree, "lock.one") == ["one"]

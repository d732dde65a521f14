"""The async face of a provider: prefixes, retry, lost answers, deadlines and limiters."""

import hashlib
import threading
from collections.abc import Mapping, Sequence

import pytest
import trio
from support.writing import until
from trio.testing import MockClock

from backgate.gateway.errors import (
    AlreadyThere,
    Denied,
    NotFound,
    Refused,
    Replaced,
    StoreError,
    Unreachable,
)
from backgate.gateway.provider import Abilities, Limits, Provider
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.store import SMALL, ObjectStore
from backgate.gateway.threads import COPY_THREADS, GET_THREADS, PUT_THREADS, SMALL_PUT_THREADS


def fault() -> Exception:
    return Unreachable("the network is down")


def small_parts() -> Abilities:
    return Abilities(limits=Limits(part_min=1, delete_max=3))


async def test_keys_are_relative_to_the_prefix() -> None:
    memory = Memory()
    memory.put("elsewhere", b"x")
    store = ObjectStore(memory, prefix="xo/")

    info = await store.put("a/b", b"1", {"mode": "33188"})
    await store.copy("a/b", "c")
    page = await store.page()
    shallow = await store.page("", "/", after="0")

    assert info.key == "a/b"
    assert memory.head("xo/a/b").metadata == {"mode": "33188"}
    assert [one.key for one in page.objects] == ["a/b", "c"]
    assert ([one.key for one in shallow.objects], shallow.prefixes) == (["c"], ["a/"])
    assert (await store.get("c", 0, 9)) == b"1"
    assert (await store.head("c")).key == "c"
    assert store.name == "memory:test/xo"


async def test_errors_name_the_key_without_the_prefix() -> None:
    store = ObjectStore(Memory(), prefix="xo/")

    with pytest.raises(NotFound) as caught:
        await store.head("a")

    assert caught.value.key == "a"


async def test_a_store_that_answers_outside_the_prefix_is_not_believed() -> None:
    class Liar(Memory):
        def page(self, prefix="", *args, **kwargs):  # type: ignore[no-untyped-def]
            return super().page("", *args, **kwargs)

    memory = Liar()
    memory.put("elsewhere", b"x")

    with pytest.raises(StoreError, match="elsewhere"):
        await ObjectStore(memory, prefix="xo/").page()


async def test_faults_are_waited_out(autojump_clock: MockClock) -> None:
    memory = Memory()
    memory.put("a", b"1")
    memory.faults.append(Fault(verb="get", times=4, error=fault))
    store = ObjectStore(memory)

    assert await store.get("a", 0, 1) == b"1"

    assert store.counters.requests["get"] == 5
    assert (store.counters.retries, store.counters.bytes_in) == (4, 1)


async def test_a_bucket_that_vanishes_is_waited_for_and_its_objects_are_not_missing(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    memory.put("a", b"1")
    store = ObjectStore(memory)
    memory.faults.append(Fault(times=3, error=lambda: NotFound("there is no such bucket")))

    assert await store.get("a", 0, 1) == b"1"

    assert store.counters.last_error == "there is no such bucket"
    memory.faults = [Fault(error=lambda: NotFound("there is no such bucket"))]
    with pytest.raises(NotFound):
        await store.check()
    for call in (lambda: store.head("a"), store.page):
        with pytest.raises(Unreachable, match="no such bucket"):
            await call()


async def test_a_store_that_calls_each_object_missing_when_its_bucket_is_gone_is_not_believed(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    memory.put("a", b"1")
    store = ObjectStore(memory)
    memory.faults += [
        Fault(verb="get", times=3, error=lambda: NotFound("no such object", key="a")),
        Fault(verb="check", times=3, error=lambda: NotFound("there is no such bucket")),
    ]

    assert await store.get("a", 0, 1) == b"1"

    memory.faults = [Fault(verb="check", error=lambda: Denied("nobody may list"))]
    with pytest.raises(NotFound):
        await store.get("b", 0, 1)


async def test_another_patience_shares_everything_else(autojump_clock: MockClock) -> None:
    memory = Memory()
    memory.faults.append(Fault(verb="head", error=fault))
    store = ObjectStore(memory)
    hasty = store.patient(0)

    with pytest.raises(Unreachable):
        await hasty.head("a")

    assert store.counters.requests["head"] == 1
    assert hasty.counters is store.counters


async def test_a_conditional_put_whose_answer_was_lost_finds_its_own_write(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    memory.faults.append(Fault(verb="put", times=1, is_lost=True))
    store = ObjectStore(memory)

    info = await store.put("lock", b"mine", {"a": "b"}, if_absent=True)

    assert info.metadata == {"a": "b"}
    assert info.size == 4
    assert [verb for verb, _ in memory.requests] == ["put", "put", "head"]


async def test_a_conditional_put_that_lost_against_another_says_so(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    await ObjectStore(memory).put("lock", b"theirs", if_absent=True)
    memory.faults.append(Fault(verb="put", times=1, error=fault))

    with pytest.raises(AlreadyThere):
        await ObjectStore(memory).put("lock", b"mine", if_absent=True)

    assert memory.get("lock", 0, 9) == b"theirs"


@pytest.mark.parametrize("if_absent", [False, True])
async def test_a_commit_whose_answer_was_lost_counts_as_done(
    if_absent: bool, autojump_clock: MockClock
) -> None:
    memory = Memory(abilities=small_parts())
    memory.faults.append(Fault(verb="commit_upload", times=1, is_lost=True))
    store = ObjectStore(memory)
    upload = await store.begin_upload("a", {"mode": "33188"})
    parts = [(number, await store.put_part("a", upload, number, b"x" * 5)) for number in (1, 2)]

    info = await store.commit_upload("a", upload, parts, if_absent=if_absent)

    assert (info.key, info.size, info.metadata) == ("a", 10, {"mode": "33188"})
    assert not await store.uploads()


async def test_a_commit_is_recognised_by_its_etag_after_a_restart() -> None:
    memory = Memory(abilities=small_parts())
    store = ObjectStore(memory)
    upload = await store.begin_upload("a")
    parts = [(1, await store.put_part("a", upload, 1, b"x"))]
    committed = await store.commit_upload("a", upload, parts)

    again = await ObjectStore(memory).commit_upload("a", upload, parts)

    assert again.etag == committed.etag
    assert again.etag == hashlib.md5(hashlib.md5(b"x").digest()).hexdigest() + "-1"


async def test_the_commit_of_an_upload_that_is_gone_is_not_found() -> None:
    memory = Memory(abilities=small_parts())
    store = ObjectStore(memory)
    upload = await store.begin_upload("a")
    parts = [(1, await store.put_part("a", upload, 1, b"x"))]
    await store.abort_upload("a", upload)
    await store.put("a", b"something else")

    with pytest.raises(NotFound):
        await store.commit_upload("a", upload, parts)


async def test_deletes_go_out_in_batches() -> None:
    memory = Memory(abilities=small_parts())
    store = ObjectStore(memory)
    for number in range(7):
        await store.put(f"k{number}", b"")

    assert await store.delete([f"k{number}" for number in range(7)]) == {}

    assert store.counters.requests["delete"] == 3
    assert not (await store.page()).objects


async def test_only_keys_that_met_a_fault_are_deleted_again(autojump_clock: MockClock) -> None:
    memory = Memory()
    memory.faults.append(Fault(verb="delete", key="b", times=2, error=fault))
    memory.faults.append(Fault(verb="delete", key="c", error=lambda: Refused("not yours")))
    store = ObjectStore(memory)

    failed = await store.delete(["a", "b", "c"])

    assert [type(failed[key]) for key in failed] == [Refused]
    assert memory.requests.count(("delete", "a")) == 1
    assert memory.requests.count(("delete", "b")) == 3


async def test_what_a_broken_off_deletion_has_deleted_is_told() -> None:
    class Expiring(Memory):
        """Its credentials are good for one batch."""

        def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
            if ("delete", "xo/a") in self.requests:
                raise Refused("the session token has expired")
            return super().delete(keys)

    store = ObjectStore(Expiring(abilities=small_parts()), prefix="xo/")

    failed = await store.delete(["a", "b", "c", "d", "e", "f", "g"])

    assert list(failed) == ["d", "e", "f", "g"]
    assert all(isinstance(error, Refused) for error in failed.values())
    with pytest.raises(Refused):
        await store.delete(["d"])


async def test_keys_that_cannot_be_deleted_in_time_are_returned(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    memory.faults.append(Fault(verb="delete", key="xo/b", error=fault))
    store = ObjectStore(memory, prefix="xo/", patience=60)

    failed = await store.delete(["a", "b"])

    assert list(failed) == ["b"]
    assert isinstance(failed["b"], Unreachable)


@pytest.mark.slow
async def test_a_call_that_never_answers_is_abandoned_at_its_deadline() -> None:
    memory, gate = Memory(), threading.Event()
    memory.put("a", b"1")
    memory.faults.append(Fault(verb="head", times=1, gate=gate))
    store = ObjectStore(memory, limit=0.05)

    try:
        with pytest.raises(Unreachable, match="no answer within"):
            await store.patient(0).head("a")
    finally:
        gate.set()

    assert (await store.head("a")).size == 1


async def test_a_cancelled_call_leaves_at_once_and_its_token_comes_back() -> None:
    memory, gate = Memory(), threading.Event()
    memory.put("a", b"1")
    memory.faults.append(Fault(verb="get", gate=gate))
    store = ObjectStore(memory)
    async with trio.open_nursery() as nursery:
        for _ in range(GET_THREADS):
            nursery.start_soon(store.get, "a", 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    memory.faults.clear()

    gate.set()

    for _ in range(GET_THREADS):
        assert await store.get("a", 0, 1) == b"1"


async def test_metadata_requests_do_not_queue_behind_gets() -> None:
    memory, gate = Memory(), threading.Event()
    memory.put("a", b"1")
    memory.faults.append(Fault(verb="get", gate=gate))
    store = ObjectStore(memory)

    async with trio.open_nursery() as nursery:
        for _ in range(2 * GET_THREADS):
            nursery.start_soon(store.get, "a", 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert (await store.head("a")).size == 1
        assert len((await store.page()).objects) == 1
        gate.set()


async def test_small_puts_are_under_way_together_and_not_behind_large_ones() -> None:
    memory, gate = Memory(), threading.Event()
    memory.faults.append(Fault(verb="put", gate=gate))
    store = ObjectStore(memory)

    async with trio.open_nursery() as nursery:
        for number in range(PUT_THREADS):
            nursery.start_soon(store.put, f"large {number}", bytes(SMALL + 1))
        for number in range(SMALL_PUT_THREADS):
            nursery.start_soon(store.put, f"small {number}", b"1")
        await until(lambda: len(memory.requests) == PUT_THREADS + SMALL_PUT_THREADS)
        gate.set()

    assert len(memory.page().objects) == PUT_THREADS + SMALL_PUT_THREADS


async def test_what_the_store_copies_holds_up_no_bytes_that_are_sent() -> None:
    memory, gate = Memory(), threading.Event()
    memory.put("a", bytes(SMALL + 1))
    memory.faults.append(Fault(verb="copy", gate=gate))
    store = ObjectStore(memory)

    async with trio.open_nursery() as nursery:
        for number in range(2 * COPY_THREADS):
            nursery.start_soon(store.copy, "a", f"copy {number}")
        await trio.testing.wait_all_tasks_blocked()
        for number in range(PUT_THREADS):
            await store.put(f"large {number}", bytes(SMALL + 1))
        gate.set()

    assert len(memory.page().objects) == 1 + 2 * COPY_THREADS + PUT_THREADS


async def test_closing_the_store_closes_its_provider() -> None:
    memory = Memory()

    await ObjectStore(memory).aclose()

    assert memory.is_closed


async def test_what_is_deleted_by_version_counts_when_the_rest_cannot_be() -> None:
    class Refusing(Memory):
        def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
            raise Denied("no")

    memory = Refusing(abilities=Abilities(conditional_delete=True))
    store = ObjectStore(memory, prefix="xo/")
    etags = {key: (await store.put(key, key.encode())).etag for key in ("a", "b", "c")}
    memory.put("xo/b", b"another")

    failed = await store.delete(["a", "b", "c"], etags={"a": etags["a"], "b": etags["b"]})

    assert {key: type(error) for key, error in failed.items()} == {"b": Replaced, "c": Denied}
    assert [info.key for info in (await store.page()).objects] == ["b", "c"]
    with pytest.raises(Denied):
        await store.delete(["c"], etags={"a": etags["a"]})


async def test_a_condition_that_the_store_does_not_know_is_left_out() -> None:
    class Unknowing(Memory):
        def delete_version(self, key: str, etag: str) -> None:
            Provider.delete_version(self, key, etag)

    memory = Unknowing(abilities=Abilities(conditional_delete=True))
    store = ObjectStore(memory)
    etags = {key: memory.put(key, b"").etag for key in ("a", "b")}

    assert await store.delete(["a", "b"], etags=etags) == {}

    assert memory.page().objects == []

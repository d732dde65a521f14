"""Nothing of a validation stays: not of this run, nor of one that was killed."""

import json
import os
import socket
import time

import pytest

from backgate.gateway.errors import InvalidKey, StoreError, Unreachable
from backgate.gateway.provider import Abilities, Limits
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.validation.area import RECORD, ROOT, Area, keys_below, remove_leftovers
from backgate.gateway.validation.asking import Asker

PID_NEVER_USED = 2**30  # beyond what Linux gives out


@pytest.fixture
def store() -> Memory:
    return Memory(abilities=Abilities(limits=Limits(delete_max=7)))


@pytest.fixture
def asker(store: Memory) -> Asker:
    return Asker(store, deadline=5.0)


async def used(asker: Asker, name: str) -> Area:
    """An area with objects of every kind and an upload, as a run leaves it that is killed."""
    area = Area(asker, ROOT, name)
    await area.open()
    area.fill(30, 10)
    for key in [*area.filled, area.key("deeds/a"), area.key("names/\x01 é")]:
        asker.provider.put(key, b"x")
    key = area.key("uploads/a")
    area.began(key, asker.provider.begin_upload(key))
    return area


def rewrite_record(store: Memory, area: Area, **changes: object) -> None:
    key = area.prefix + RECORD
    record = json.loads(store.get(key, 0, 9999))
    store.put(key, json.dumps(record | changes).encode())


async def test_everything_is_deleted_by_name(store: Memory, asker: Asker) -> None:
    area = await used(asker, "mine")
    store.faults.append(Fault(verb="page", error=lambda: StoreError("403: no listing for you")))

    assert await area.clean() == []

    store.faults.clear()
    assert store._objects == {}
    assert list(store.uploads()) == []


async def test_a_name_that_the_store_has_changed_is_found_by_the_listing(
    store: Memory, asker: Asker
) -> None:
    area = await used(asker, "mine")
    store.put(area.prefix + "changed by the store", b"")

    assert await area.clean() == []

    assert store._objects == {}


async def test_faults_of_single_keys_are_waited_out(
    store: Memory, asker: Asker, autojump_clock: object
) -> None:
    area = await used(asker, "mine")
    store.faults.append(Fault(verb="delete", times=20, error=lambda: Unreachable("503")))

    assert await area.clean() == []

    assert store._objects == {}


async def test_a_key_that_was_refused_is_not_missed(store: Memory, asker: Asker) -> None:
    area = await used(asker, "mine")
    refused = area.key("names/../x")
    store.faults.append(Fault(verb="delete", key="*..*", error=lambda: InvalidKey("no")))
    area.forget(refused)

    assert await area.clean() == []


async def test_what_a_dead_run_left_is_removed(store: Memory, asker: Asker) -> None:
    dead = await used(asker, "dead")
    rewrite_record(store, dead, pid=PID_NEVER_USED)
    store.put("mine", b"")

    assert await remove_leftovers(asker, ROOT) == (1, [])

    assert list(store._objects) == ["mine"]
    assert list(store.uploads()) == []


async def test_a_process_of_the_same_number_is_another(store: Memory, asker: Asker) -> None:
    dead = await used(asker, "dead")
    rewrite_record(store, dead, born=1)

    assert (await remove_leftovers(asker, ROOT))[0] == 1


async def test_a_run_that_is_alive_is_left_alone(store: Memory, asker: Asker) -> None:
    alive = await used(asker, "alive")
    elsewhere = await used(asker, "elsewhere")
    rewrite_record(store, elsewhere, host="another machine", pid=PID_NEVER_USED)
    before = sorted(store._objects)

    assert await remove_leftovers(asker, ROOT) == (0, ["alive", "elsewhere"])

    assert sorted(store._objects) == before
    assert len(store.uploads()) == 2
    assert json.loads(store.get(alive.prefix + RECORD, 0, 999))["host"] == socket.gethostname()


async def test_a_run_elsewhere_is_dead_after_a_day(store: Memory, asker: Asker) -> None:
    old = await used(asker, "old")
    rewrite_record(store, old, host="another machine", started=time.time() - 90_000)

    assert await remove_leftovers(asker, ROOT) == (1, [])


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b"\xff", b'{"host": 1, "started": "x"}'])
async def test_a_record_that_says_nothing_is_of_a_dead_run(
    record: bytes, store: Memory, asker: Asker
) -> None:
    damaged = await used(asker, "damaged")
    store.put(damaged.prefix + RECORD, record)

    assert (await remove_leftovers(asker, ROOT))[0] == 1
    assert store._objects == {}


async def test_the_record_goes_last(store: Memory, asker: Asker) -> None:
    area = await used(asker, "mine")

    await area.clean()

    assert store.requests[-1] == ("delete", area.prefix + RECORD)


async def test_a_listing_goes_on_in_smaller_pages_where_larger_ones_fail(
    store: Memory, asker: Asker
) -> None:
    for number in range(25):
        store.put(f"a/{number:02}", b"")
    store.faults.append(Fault(verb="page", times=2, error=lambda: Unreachable("504")))

    assert await keys_below(asker, "a/") == [f"a/{number:02}" for number in range(25)]

    assert [verb for verb, _ in store.requests].count("page") == 5


def test_this_process_is_known_by_its_start() -> None:
    from backgate.gateway.validation.area import _process

    assert _process(os.getpid())["born"] > 0
    assert _process(PID_NEVER_USED) == {}

"""Tests of `gateway/deletions.py`."""

import pytest
import trio

from backgate.gateway.deletions import REQUESTS_MAX, Deletions
from backgate.gateway.errors import Refused, Unreachable
from backgate.gateway.provider import Abilities, Limits
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.store import ObjectStore


async def delete_all(store: ObjectStore, keys: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        deletions = Deletions(store, nursery)
        for key in keys:
            nursery.start_soon(deletions.delete, key)


async def test_concurrent_callers_share_requests() -> None:
    provider = Memory()
    store = ObjectStore(provider)
    keys = [f"key{number}" for number in range(500)]
    for key in keys:
        provider.put(key, b"")

    await delete_all(store, keys)

    assert provider.page().objects == []
    assert store.counters.requests["delete"] <= REQUESTS_MAX + 1


async def test_a_request_has_no_more_keys_than_the_store_takes() -> None:
    provider = Memory(abilities=Abilities(limits=Limits(delete_max=10)))
    store = ObjectStore(provider)

    await delete_all(store, [f"key{number}" for number in range(100)])

    assert 10 <= store.counters.requests["delete"] <= 10 + REQUESTS_MAX


async def test_an_error_concerns_its_own_key_only() -> None:
    provider = Memory()
    provider.put("good", b"")
    provider.put("bad", b"")
    provider.faults = [Fault(verb="delete", key="bad", error=lambda: Refused("no"))]
    async with trio.open_nursery() as nursery:
        deletions = Deletions(ObjectStore(provider, patience=0), nursery)
        nursery.start_soon(deletions.delete, "good")
        with pytest.raises(Refused):
            await deletions.delete("bad")

    assert [info.key for info in provider.page().objects] == ["bad"]


async def test_a_store_that_is_gone_fails_every_caller() -> None:
    provider = Memory()
    provider.faults = [Fault(verb="delete", error=lambda: Unreachable("gone"))]
    async with trio.open_nursery() as nursery:
        deletions = Deletions(ObjectStore(provider, patience=0), nursery)
        for key in ("a", "b"):
            with pytest.raises(Unreachable):
                await deletions.delete(key)

"""Tests of `gateway/copies.py`: any store copies any object, one way or another."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from support.writing import PART, SMALL, Open, memory, opened, place, rename, until, write

from backgate.gateway.copies import Copies
from backgate.gateway.errors import Denied, NotFound, Replaced, Unreachable
from backgate.gateway.journal import Journal
from backgate.gateway.parts import PartPlan
from backgate.gateway.providers.memory import Fault
from backgate.gateway.units import KIB
from backgate.gateway.uploads import Uploads

DATA = bytes(range(256)) * 512  # 128 KiB
METADATA = {"mode": "33188", "name": "é"}

STORES: dict[str, dict[str, object]] = {
    "in one request": {},
    "in parts": {"limits": replace(SMALL, copy_max=16 * KIB)},
    "in few parts": {"limits": replace(SMALL, copy_max=64 * KIB, part_count=2)},
    "in equal parts": {"limits": replace(SMALL, copy_max=24 * KIB, equal_parts=True)},
    "without copies of parts": {
        "copies_parts": False,
        "limits": replace(SMALL, copy_max=16 * KIB, put_max=16 * KIB),
    },
    "without copies": {"copies_objects": False},
    "without any": {
        "copies_objects": False,
        "copies_parts": False,
        "limits": replace(SMALL, put_max=16 * KIB, equal_parts=True),
    },
}


@pytest.fixture(params=STORES.values(), ids=STORES.keys())
async def repository(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Open, Copies]]:
    abilities = {"limits": SMALL, **request.param}
    async with opened(tmp_path, memory(**abilities)) as found:
        found.provider.put("stored", DATA, METADATA)
        journal = Journal(tmp_path)
        plan = PartPlan(found.store.abilities.limits, PART)
        async with trio.open_nursery() as nursery:
            yield found, Copies(found.store, Uploads(found.store, journal, nursery), plan)
        assert not journal.state.uploads
        journal.close()


async def test_any_store_copies_any_object(repository: tuple[Open, Copies]) -> None:
    found, copies = repository
    info = found.provider.head("stored")

    copy = await copies.copy(info, None, "copy")

    assert (copy.key, copy.size) == ("copy", len(DATA))
    assert found.content("copy") == DATA
    assert (await found.store.head("copy")).metadata == METADATA
    assert list(found.provider.uploads()) == []


async def test_an_empty_object_is_copied(repository: tuple[Open, Copies]) -> None:
    found, copies = repository
    info = found.provider.put("empty", b"", METADATA)

    await copies.copy(info, None, "copy")

    assert found.provider.head("copy").metadata == METADATA


async def test_a_copy_of_what_is_gone_fails(repository: tuple[Open, Copies]) -> None:
    found, copies = repository
    info = found.provider.head("stored")
    found.provider.delete(["stored"])

    with pytest.raises(NotFound):
        await copies.copy(info, None, "copy")
    assert found.stored_keys() == []


async def test_what_changes_on_its_way_through_the_gateway_is_not_mixed(tmp_path: Path) -> None:
    async with opened(tmp_path, memory(copies_objects=False)) as found:
        old = found.provider.put("stored", DATA)
        found.provider.put("stored", DATA[::-1])
        journal = Journal(tmp_path)

        async with trio.open_nursery() as nursery:
            uploads = Uploads(found.store, journal, nursery)
            with pytest.raises(Replaced):
                await Copies(found.store, uploads, PartPlan(SMALL, PART)).copy(old, None, "copy")

        assert found.stored_keys() == ["stored"]
        assert list(found.provider.uploads()) == []
        journal.close()


@pytest.mark.parametrize("verb", ["copy_part", "commit_upload"])
async def test_a_copy_in_parts_that_fails_leaves_no_upload(tmp_path: Path, verb: str) -> None:
    provider = memory(limits=replace(SMALL, copy_max=16 * KIB))
    async with opened(tmp_path, provider) as found:
        await write(found.tree, "a", DATA)
        provider.faults = [
            Fault(verb=verb, skip=2 * (verb == "copy_part"), error=lambda: Denied("no more")),
            Fault(verb="abort_upload", error=lambda: Unreachable("away"), times=1),
        ]

        with pytest.raises(Denied):
            await rename(found.tree, "a", "b")

        await until(lambda: ("abort_upload", "b") in provider.requests)
        assert len(provider.uploads()) == len(found.spool.journal.state.uploads) == 1
        with pytest.raises(Denied):
            await rename(found.tree, "a", "c")
        await until(lambda: [one.key for one in provider.uploads()] == ["b"])
        assert found.stored_keys() == ["a"]
    async with opened(tmp_path, provider) as found:
        await until(lambda: not provider.uploads())


async def test_a_file_is_renamed_where_the_store_copies_nothing(tmp_path: Path) -> None:
    store = memory(copies_objects=False, copies_parts=False)
    async with opened(tmp_path, store) as found:
        await write(found.tree, "a", DATA)
        directory, _ = await place(found.tree, "a")

        await found.tree.rename(directory, b"a", directory, b"b")

        assert found.stored_keys() == ["b"]
        assert found.content("b") == DATA

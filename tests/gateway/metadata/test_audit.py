import itertools
from pathlib import Path

import pytest
import trio
from support.at_once import at_once

from backgate.gateway.errors import Unreachable
from backgate.gateway.metadata.audit import EVERY, SAMPLE, Audit
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.providers.memory import Fault, Memory

from .conftest import OpenCache


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def audit_of(metadata: Metadata) -> Audit:
    """An audit that looks at one object after another."""
    numbers = itertools.count()
    return Audit(
        metadata._index, metadata._asking, metadata._freshness, lambda count: next(numbers) % count
    )


async def test_an_index_that_is_right_passes(open_cache: OpenCache, memory: Memory) -> None:
    for number in range(20):
        memory.put(f"{number}", b"1")
    async with open_cache() as metadata:
        await metadata.complete()

        assert await audit_of(metadata).once() == 0
        status = await metadata.status()

    assert (status.audited, status.drifted, status.is_due) == (SAMPLE, 0, False)


async def test_drift_is_said_and_mended_and_everything_is_listed_again(
    open_cache: OpenCache, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("a", "b", "c"):
        memory.put(key, b"1")
    async with open_cache() as metadata:
        await metadata.complete()
        memory.delete(["a"])
        memory.put("b", b"22")

        drifted = await audit_of(metadata).once()
        status = await metadata.status()
        found = [info.size for info in await metadata.below("")]

    assert drifted == 2
    assert (status.drifted, status.is_due) == (2, True)
    assert found == [2, 1]
    assert "'a' is gone in the store" in caplog.text
    assert "'b' is another version in the store" in caplog.text


async def test_shared_writers_may_change_what_they_like(
    open_cache: OpenCache, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    memory.put("a", b"1")
    async with open_cache(writers="shared") as metadata:
        await metadata.complete()
        memory.put("a", b"22")

        assert await audit_of(metadata).once() == SAMPLE - 7
        assert not (await metadata.status()).is_due

    assert "another version" not in caplog.text


async def test_own_writes_are_no_drift(open_cache: OpenCache, memory: Memory) -> None:
    memory.put("a", b"1")
    async with open_cache() as metadata:
        await metadata.complete()
        head = memory.head

        def changing(key: str) -> object:
            info = head(key)
            at_once(metadata.stored(memory.put("a", b"22"), None))
            return info

        memory.head = changing  # type: ignore[method-assign, assignment]

        assert await audit_of(metadata).once() == 0


async def test_a_store_that_is_away_is_no_drift(open_cache: OpenCache, memory: Memory) -> None:
    memory.put("a", b"1")
    async with open_cache() as metadata:
        await metadata.complete()
        memory.faults = [Fault(error=lambda: Unreachable("no connection"))]
        hasty = metadata.patient(0)

        assert await audit_of(hasty).once() == 0
        assert (await metadata.status()).audited == 0


async def test_a_mount_compares_a_sample_every_hour(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("a", b"1")
    async with open_cache(crawls=True) as metadata:
        await trio.sleep(2.5 * EVERY)

        assert (await metadata.status()).audited == 2 * SAMPLE

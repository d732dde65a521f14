"""Opening a repository: what a store that is slow, away, or says no may do to it."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import Denied, NotFound, Refused, Unreachable
from backgate.gateway.places import Places, places_of
from backgate.gateway.providers.memory import Fault, Memory, open_url
from backgate.gateway.repository import open_repository

WITHIN = 120.0  # seconds; a check that is waited for never comes


@pytest.fixture
def config(tmp_path: Path) -> RepositoryConfig:
    return RepositoryConfig(name="test", url=f"memory:{tmp_path.name}")


@pytest.fixture
def places(config: RepositoryConfig, tmp_path: Path) -> Places:
    names = ("CACHE_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY")
    return places_of(config, {name: str(tmp_path / name) for name in names})


@pytest.fixture
def store(config: RepositoryConfig) -> Memory:
    provider, _ = open_url(config, None)
    assert isinstance(provider, Memory)
    provider.put("a", b"content")
    return provider


@pytest.fixture
def held(store: Memory) -> Iterator[threading.Event]:
    """A gate before the store's answer to checks; nothing stays behind it."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.mark.parametrize("error", [NotFound("no bucket"), Refused("wrong keys")])
async def test_a_store_that_says_no_is_an_error_and_leaves_no_cache(
    error: Exception, config: RepositoryConfig, places: Places, store: Memory
) -> None:
    store.faults = [Fault(verb="check", error=lambda: error)]

    for _ in range(2):
        with pytest.raises(type(error)):
            async with open_repository(config, places, None, writable=False):
                pass


async def test_a_no_that_comes_at_once_is_an_error_with_a_cache_too(
    config: RepositoryConfig, places: Places, store: Memory
) -> None:
    async with open_repository(config, places, None, writable=False) as repository:
        await repository.metadata.complete()
    store.faults = [Fault(verb="check", error=lambda: Refused("wrong keys"))]

    with pytest.raises(Refused):
        async with open_repository(config, places, None, writable=False):
            pass


async def test_credentials_that_may_not_list_suffice_where_there_is_an_index(
    config: RepositoryConfig, places: Places, store: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    denied = Fault(verb="check", error=lambda: Denied("allow s3:ListBucket"))
    store.faults = [denied]
    with pytest.raises(Denied):
        async with open_repository(config, places, None, writable=False):
            pass
    store.faults = []
    async with open_repository(config, places, None, writable=False) as repository:
        await repository.metadata.complete()
    store.faults = [denied]

    async with open_repository(config, places, None, writable=False) as repository:
        info = await repository.objects.info("a")
        assert bytes(await repository.source(info).read_at(0, 9)) == b"content"

    assert "allow s3:ListBucket" in caplog.text


async def test_with_a_cache_a_store_that_is_slow_to_answer_is_not_waited_for(
    config: RepositoryConfig,
    places: Places,
    store: Memory,
    held: threading.Event,
) -> None:
    async with open_repository(config, places, None, writable=False) as repository:
        await repository.metadata.complete()
    store.faults = [Fault(verb="check", gate=held)]

    with trio.fail_after(WITHIN):
        async with open_repository(config, places, None, writable=False) as repository:
            found, _ = await repository.metadata.children("")

    assert len(found) == 1


async def test_with_a_cache_a_store_that_is_away_is_said_at_once(
    config: RepositoryConfig, places: Places, store: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_repository(config, places, None, writable=False) as repository:
        await repository.metadata.complete()
    store.faults = [Fault(verb="check", error=lambda: Unreachable("no connection"))]
    before = len(store.requests)

    async with open_repository(config, places, None, writable=False, crawls=False) as repository:
        found, _ = await repository.metadata.children("")

    assert len(found) == 1
    assert "the store does not answer, going on with what is known: no connection" in caplog.text
    assert store.requests[before:] == [("check", "")]


async def test_a_no_that_comes_late_is_logged(
    config: RepositoryConfig,
    places: Places,
    store: Memory,
    held: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_repository(config, places, None, writable=False) as repository:
        await repository.metadata.complete()
    asked, loop = trio.Event(), trio.lowlevel.current_trio_token()

    def refused() -> Exception:
        loop.run_sync_soon(asked.set)
        return Refused("wrong keys")

    store.faults = [
        Fault(verb="check", times=1, gate=held),
        Fault(verb="check", error=refused),
    ]

    with trio.fail_after(WITHIN):
        async with open_repository(config, places, None, writable=False):
            await asked.wait()
            await wait_all_tasks_blocked()

    assert caplog.records[0].levelno == logging.WARNING
    assert "wrong keys" in caplog.text

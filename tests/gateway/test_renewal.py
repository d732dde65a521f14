"""Credentials that expire while a repository is open, and are renewed where they lie."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.seaweedfs import SeaweedFS

from backgate.gateway import renewal
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import credentials_of
from backgate.gateway.errors import Denied, WrongCredentials
from backgate.gateway.places import Places, places_of
from backgate.gateway.repository import Repository, open_repository

pytestmark = [pytest.mark.live, pytest.mark.slow]

DATA = b"content"


@pytest.fixture
def proxy(seaweedfs_server: SeaweedFS) -> Iterator[FaultProxy]:
    with fault_proxy(seaweedfs_server.endpoint_url) as running:
        yield running


@pytest.fixture
def keys(tmp_path: Path, seaweedfs_server: SeaweedFS) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    write(path, seaweedfs_server.access_key, seaweedfs_server.secret_key)
    return path


@pytest.fixture
def config(keys: Path, proxy: FaultProxy, seaweedfs_server: SeaweedFS) -> RepositoryConfig:
    seaweedfs_server.bucket("renewal")
    return RepositoryConfig(
        name="test",
        url="s3://renewal",
        provider="seaweedfs",
        endpoint_url=proxy.url,
        credentials=f"file:{keys}",
    )


@pytest.fixture
def places(config: RepositoryConfig, tmp_path: Path) -> Places:
    names = ("CACHE_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY")
    return places_of(config, {name: str(tmp_path / name) for name in names})


def write(path: Path, access: str, secret: str) -> None:
    path.write_text(f'access_key = "{access}"\nsecret_key = "{secret}"\n')


def opening(config: RepositoryConfig, places: Places) -> AbstractAsyncContextManager[Repository]:
    return open_repository(config, places, credentials_of(config), writable=False, crawls=False)


async def waits(repository: Repository) -> None:
    while not repository.store.counters.expired:
        await trio.lowlevel.checkpoint()


async def test_keys_that_are_replaced_are_read_anew_by_all_verbs(
    config: RepositoryConfig,
    places: Places,
    proxy: FaultProxy,
    keys: Path,
    seaweedfs_server: SeaweedFS,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewal, "LOOK_EVERY", 0.0)
    write(keys, "gone", "gone")
    with pytest.raises(WrongCredentials):
        async with opening(config, places):
            pass
    write(keys, seaweedfs_server.access_key, seaweedfs_server.secret_key)

    async with opening(config, places) as repository:
        store = repository.store
        await store.put("a", DATA)
        write(keys, "gone", "gone")
        proxy.rules.append(Rule(status=403, code="InvalidAccessKeyId", times=1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.begin_upload, "b")
            await waits(repository)
            write(keys, seaweedfs_server.access_key, seaweedfs_server.secret_key)

        assert (await store.head("a")).size == len(DATA)
        assert len(await store.uploads()) == 1


async def test_a_token_that_expires_is_waited_for_and_said(
    config: RepositoryConfig,
    places: Places,
    proxy: FaultProxy,
    keys: Path,
    seaweedfs_server: SeaweedFS,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewal, "LOOK_EVERY", 0.0)
    async with opening(config, places) as repository:
        store = repository.store
        await store.put("a", DATA)
        expired = Rule(status=403, code="ExpiredToken")
        proxy.rules.append(expired)
        got: list[bytes] = []

        async def read() -> None:
            got.append(await store.get("a", 0, len(DATA)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await waits(repository)
            assert store.counters.expired == f"file:{keys}"
            assert "credentials expired, waiting for new ones in file:" in store.counters.last_error
            proxy.rules.clear()

        assert got == [DATA]
        assert store.counters.expired == ""


async def test_what_is_denied_is_not_waited_for(
    config: RepositoryConfig, places: Places, proxy: FaultProxy
) -> None:
    async with opening(config, places) as repository:
        await repository.store.put("a", DATA)
        proxy.rules.append(Rule(status=403, code="AccessDenied"))

        with pytest.raises(Denied):
            await repository.store.head("a")

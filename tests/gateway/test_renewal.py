"""Credentials that expire while a repository is open, and are renewed where they lie."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from azure.storage.blob import generate_container_sas
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from servers.azurite import Azurite
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.gcs import FakeGcs
from servers.seaweedfs import SeaweedFS

from backgate.gateway import renewal
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import credentials_of
from backgate.gateway.errors import Denied, WrongCredentials
from backgate.gateway.places import Places, places_of
from backgate.gateway.repository import Repository, open_repository
from backgate.gateway.store import ObjectStore

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
    return places_in(tmp_path, config)


def places_in(tmp_path: Path, config: RepositoryConfig) -> Places:
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


async def read_until_renewed(
    config: RepositoryConfig,
    tmp_path: Path,
    renew: Callable[[], None],
    expire: Callable[[ObjectStore], None] = lambda _: None,
) -> None:
    """Read again and again with credentials that expire, and on with those that `renew` gives."""
    async with opening(config, places_in(tmp_path, config)) as repository:
        store, is_renewed = repository.store, trio.Event()
        await store.put("a", DATA)
        expire(store)

        async def read() -> None:
            while not is_renewed.is_set():
                assert await store.get("a", 0, len(DATA)) == DATA

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await waits(repository)
            assert "waiting for new ones in file:" in store.counters.last_error
            renew()
            is_renewed.set()

        assert store.counters.expired == ""
        assert await store.get("a", 0, len(DATA)) == DATA


async def test_a_signature_of_azure_that_expires_is_replaced(
    azurite_server: Azurite, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "LOOK_EVERY", 0.0)
    azurite_server.empty(azurite_server.container("renewal"))

    def sign(seconds: float) -> None:
        signature = generate_container_sas(
            azurite_server.account,
            "renewal",
            account_key=azurite_server.key,
            permission="racwdl",
            expiry=datetime.now(UTC) + timedelta(seconds=seconds),
        )
        keys.write_text(f'sas = "{signature}"')

    config = RepositoryConfig(
        name="test",
        url="az://renewal",
        endpoint_url=azurite_server.endpoint_url,
        credentials=f"file:{keys}",
    )

    def expire(store: ObjectStore) -> None:
        """Have the time pass for which what was signed is good."""
        sign(seconds=-60)
        store._provider.renew(credentials_of(config))

    sign(seconds=600)

    await read_until_renewed(config, tmp_path, lambda: sign(seconds=600), expire)


async def test_an_account_of_google_that_is_no_longer_known_is_replaced(
    gcs_server: FakeGcs, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "LOOK_EVERY", 0.0)
    gcs_server.empty(gcs_server.bucket("renewal"))
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with fault_proxy(gcs_server.endpoint_url) as proxy:

        def grant(name: str) -> None:
            keys.write_text(
                json.dumps(
                    {
                        "type": "service_account",
                        "private_key": private.decode(),
                        "client_email": f"{name}@acme.iam.gserviceaccount.com",
                        "token_uri": f"{proxy.url}/{name}",
                    }
                )
            )
            token = json.dumps({"access_token": name, "expires_in": 3600, "token_type": "Bearer"})
            kind = {"Content-Type": "application/json"}
            match = f"POST /{name}"
            proxy.rules[:] = [Rule(match=match, status=200, headers=kind, body=token.encode())]

        config = RepositoryConfig(
            name="test",
            url="gs://renewal",
            endpoint_url=proxy.url,
            credentials=f"file:{keys}",
        )
        grant("first")
        proxy.rules.append(Rule(match="/o/a", status=401, skip=1))

        await read_until_renewed(config, tmp_path, lambda: grant("second"))

        assert proxy.headers[-1]["authorization"] == "Bearer second"

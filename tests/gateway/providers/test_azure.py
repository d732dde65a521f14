"""Azure against Azurite: the contract, and what goes wrong."""

import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import generate_container_sas
from servers.azurite import Azurite

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials, AzureCredentials
from backgate.gateway.errors import ConfigError, NotFound, Refused
from backgate.gateway.provider import Provider
from backgate.gateway.providers import azure_keys, open_provider
from backgate.gateway.providers.azure_keys import Signature
from backgate.gateway.testing.provider_contract import ProviderContract

pytestmark = [pytest.mark.live, pytest.mark.slow]


def opened(
    server: Azurite,
    container: str,
    credentials: AnyCredentials | None,
    endpoint_url: str | None = None,
) -> Provider:
    """The container as a repository would open it."""
    config = RepositoryConfig(
        name="test",
        url=f"az://{container}",
        endpoint_url=endpoint_url or server.endpoint_url,
        ca_bundle=server.ca_bundle,
    )
    return open_provider(config, credentials)[0]


@pytest.fixture(scope="module")
def container(azurite_tls_server: Azurite) -> Iterator[Provider]:
    server = azurite_tls_server
    provider = opened(server, server.container("contract"), AzureCredentials(key=server.key))
    yield provider
    provider.close()


class TestAzurite(ProviderContract):
    @pytest.fixture
    def provider(self, container: Provider, azurite_tls_server: Azurite) -> Provider:
        azurite_tls_server.empty("contract")
        return container


@pytest.fixture(scope="module")
def server(azurite_server: Azurite) -> Azurite:
    azurite_server.container("other")
    return azurite_server


def signature(server: Azurite, permission: str, hours: int) -> str:
    """What an administrator would have made for us."""
    now = datetime.now(UTC)
    return generate_container_sas(
        server.account,
        "other",
        account_key=server.key,
        permission=permission,
        expiry=now + timedelta(hours=hours),
    )


def test_a_signature_opens_the_container_as_far_as_it_goes(server: Azurite) -> None:
    writer = opened(server, "other", AzureCredentials(sas=signature(server, "racwdl", 1)))
    reader = opened(server, "other", AzureCredentials(sas="?" + signature(server, "rl", 1)))

    writer.check()
    writer.put("a", b"data")
    writer.copy("a", "b")
    assert reader.get("b", 0, 9) == b"data"
    assert writer.delete(["b", "c"]) == {}
    with pytest.raises(Refused, match="access denied"):
        reader.put("a", b"")
    writer.close()
    reader.close()


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        (AzureCredentials(key=b64encode(b"wrong").decode()), "wrong key or signature|denied"),
        (AzureCredentials(sas="sv=2023-11-03&sig=d3Jvbmc%3D"), "wrong key or signature|denied"),
        (None, "no credentials: set AZURE_STORAGE_KEY"),
    ],
)
def test_wrong_credentials_are_said_and_not_shown(
    credentials: AzureCredentials | None, words: str, server: Azurite
) -> None:
    provider = opened(server, "other", credentials)

    for call in (
        provider.check,
        lambda: provider.head("a"),
        lambda: provider.put("a", b""),
        lambda: provider.delete(["a", "b"]),
    ):
        with pytest.raises(Refused, match=words) as caught:
            call()
        assert "d3J" not in str(caught.value)
        assert "sig=" not in str(caught.value)
    provider.close()


def test_an_expired_signature_is_refused(server: Azurite) -> None:
    provider = opened(server, "other", AzureCredentials(sas=signature(server, "racwdl", -1)))

    with pytest.raises(Refused, match=r"expired|denied"):
        provider.check()
    provider.close()


def test_a_missing_container_is_said(server: Azurite) -> None:
    provider = opened(server, "no-such-container", AzureCredentials(key=server.key))

    for call in (
        provider.check,
        lambda: provider.get("a", 0, 1),
        lambda: provider.head("a"),
        lambda: provider.put("a", b""),
        lambda: provider.delete(["a"]),
        lambda: provider.begin_upload("a"),
    ):
        with pytest.raises(NotFound, match="no such container") as caught:
            call()
        assert caught.value.key is None
    provider.close()


def test_a_key_renews_its_signature_before_it_ends(
    server: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = AzureCredentials(server.account, server.key)
    made = Signature(keys, "other", "x", is_https=False)
    first = made.query()
    assert made.query() == first

    monkeypatch.setattr(azure_keys, "LIFETIME", azure_keys.LIFETIME + 1)
    monkeypatch.setattr(made, "_until", 0.0)

    assert made.query() != first


def test_without_microsofts_sdk_a_key_asks_for_the_extra(
    server: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)

    with pytest.raises(ConfigError, match=r"pip install 'backgate\[azure\]'"):
        opened(server, "other", AzureCredentials(key=server.key))
    opened(server, "other", AzureCredentials(sas="sv=x")).close()


@pytest.mark.parametrize(
    ("credentials", "url", "account", "words"),
    [
        (AzureCredentials("acme", "a2V5"), "https://other.blob.core.windows.net", None, "'acme'"),
        (AzureCredentials("acme", "a2V5"), None, "other", "not of 'other'"),
        (AzureCredentials(key="a2V5"), "https://backups.example.com", None, "account is missing"),
        (AzureCredentials("acme", "a2V5"), None, None, "account is missing"),
        (AzureCredentials(), "https://acme.blob.core.windows.net/?sv=1", None, "into credentials"),
    ],
)
def test_what_does_not_fit_together_is_said(
    credentials: AzureCredentials, url: str | None, account: str | None, words: str
) -> None:
    config = RepositoryConfig(
        name="x", url="az://backups", endpoint_url=url, account=account, origin="b.toml"
    )

    with pytest.raises(ConfigError, match=words):
        open_provider(config, credentials)


def test_one_of_two_uploads_to_a_key_is_told_that_it_is_gone(server: Azurite) -> None:
    provider = opened(server, "other", AzureCredentials(key=server.key))
    uploads = [provider.begin_upload("twice") for _ in range(2)]
    etags = [provider.put_part("twice", upload, 1, b"data") for upload in uploads]

    provider.commit_upload("twice", uploads[0], [(1, etags[0])])

    with pytest.raises(NotFound, match="no such upload"):
        provider.commit_upload("twice", uploads[1], [(1, etags[1])])
    provider.abort_upload("twice", uploads[1])
    provider.close()


def test_another_process_ends_an_upload(server: Azurite) -> None:
    keys = AzureCredentials(key=server.key)
    first, second = opened(server, "other", keys), opened(server, "other", keys)
    upload = first.begin_upload("shared", {"mode": "1"})
    etag = first.put_part("shared", upload, 1, b"one")

    other = second.put_part("shared", upload, 2, b"two")
    info = second.commit_upload("shared", upload, [(1, etag), (2, other)])

    assert first.get("shared", 0, 9) == b"onetwo"
    assert info.metadata == {"mode": "1"}
    with pytest.raises(NotFound):
        first.commit_upload("shared", upload, [(1, etag)])
    first.close()
    second.close()


def test_metadata_that_is_replaced_by_none_is_gone(server: Azurite) -> None:
    provider = opened(server, "other", AzureCredentials(key=server.key))
    provider.put("a", b"", {"mode": "1"})

    assert provider.copy("a", "b", {}).metadata == {}
    assert provider.copy("a", "a", {}).metadata == {}
    provider.close()

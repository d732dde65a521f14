"""S3 against a real server, over http and over TLS: the contract, and what goes wrong."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from servers.seaweedfs import SeaweedFS

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import ConfigError, NotFound, Refused
from backgate.gateway.provider import Provider
from backgate.gateway.providers import open_provider
from backgate.gateway.testing.provider_contract import ProviderContract

pytestmark = pytest.mark.live


def opened(server: SeaweedFS, bucket: str, **changes: object) -> Provider:
    """The bucket as a repository would open it."""
    settings: dict[str, object] = {
        "provider": "seaweedfs",
        "endpoint_url": server.endpoint_url,
        "ca_bundle": server.ca_bundle,
    }
    keys = Credentials(server.access_key, server.secret_key)
    credentials = changes.pop("credentials", keys)
    config = RepositoryConfig(name="test", url=f"s3://{bucket}", **(settings | changes))  # type: ignore[arg-type]
    return open_provider(config, credentials)[0]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bucket(seaweedfs_server: SeaweedFS) -> Iterator[Provider]:
    provider = opened(seaweedfs_server, seaweedfs_server.bucket("contract"))
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def tls_bucket(seaweedfs_tls_server: SeaweedFS) -> Iterator[Provider]:
    provider = opened(seaweedfs_tls_server, seaweedfs_tls_server.bucket("contract"))
    yield provider
    provider.close()


class TestSeaweedFS(ProviderContract):
    @pytest.fixture
    def provider(self, bucket: Provider, seaweedfs_server: SeaweedFS) -> Provider:
        seaweedfs_server.empty("contract")
        return bucket


class TestSeaweedFSOverTLS(ProviderContract):
    @pytest.fixture
    def provider(self, tls_bucket: Provider, seaweedfs_tls_server: SeaweedFS) -> Provider:
        seaweedfs_tls_server.empty("contract")
        return tls_bucket


def test_a_wrong_bucket_is_said(seaweedfs_server: SeaweedFS) -> None:
    provider = opened(seaweedfs_server, "no-such-bucket")

    for call in (provider.check, provider.page, lambda: provider.get("a", 0, 1)):
        with pytest.raises(NotFound, match=r"s3://no-such-bucket: .*no such bucket"):
            call()
    with pytest.raises(NotFound, match="no such bucket"):
        provider.put("a", b"")
    provider.close()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (Credentials("testkey", "wrong-secret"), "secret key is wrong|access denied"),
        (Credentials("wrong-key", "testsecret"), "does not know the access key|access denied"),
        (None, "no credentials: set AWS_ACCESS_KEY_ID"),
    ],
)
def test_wrong_credentials_are_said_and_not_shown(
    keys: Credentials | None, words: str, seaweedfs_server: SeaweedFS
) -> None:
    provider = opened(seaweedfs_server, "contract", credentials=keys)

    for call in (
        provider.check,
        provider.page,
        lambda: provider.head("a"),
        lambda: provider.put("a", b""),
    ):
        with pytest.raises(Refused, match=words) as caught:
            call()
        assert "secret" not in str(caught.value).replace("secret key is wrong", "")
    provider.close()


def test_without_credentials_the_metadata_address_is_not_asked(
    seaweedfs_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9/")
    asked: list[str] = []
    monkeypatch.setattr(
        "botocore.utils.InstanceMetadataFetcher.retrieve_iam_role_credentials",
        lambda fetcher: asked.append("metadata"),
    )

    provider = opened(seaweedfs_server, "contract", credentials=None)
    with pytest.raises(Refused):
        provider.check()

    assert asked == []
    provider.close()


def test_what_is_read_listed_and_checked_needs_none_of_the_clients_that_take_long_to_make(
    seaweedfs_server: SeaweedFS,
) -> None:
    seaweedfs_server.bucket("contract")
    keys = Credentials(seaweedfs_server.access_key, seaweedfs_server.secret_key)
    program = (
        "import sys\n"
        "from backgate.gateway.config import RepositoryConfig\n"
        "from backgate.gateway.credentials import Credentials\n"
        "from backgate.gateway.providers import open_provider\n"
        "keys = Credentials(*sys.argv[2:])\n"
        "config = RepositoryConfig(name='a', url='s3://contract', endpoint_url=sys.argv[1])\n"
        "provider, _ = open_provider(config, keys)\n"
        "provider.check(), provider.page(), provider.close()\n"
        "print('botocore.session' in sys.modules)\n"
    )

    arguments = [seaweedfs_server.endpoint_url, keys.access_key, keys.secret_key]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"


@pytest.mark.parametrize("bucket", ["a?b", "a b", "a%2Fb", "é", "a#b"])
def test_what_cannot_be_a_buckets_name_never_becomes_a_part_of_a_url(bucket: str) -> None:
    config = RepositoryConfig(name="a", url=f"s3://{bucket}/x", endpoint_url="http://127.0.0.1:9")

    with pytest.raises(ConfigError, match="cannot be a bucket's name"):
        open_provider(config, Credentials("a", "b"))


def test_credentials_of_the_environment_are_used(
    seaweedfs_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    seaweedfs_server.bucket("contract")
    for name, value in seaweedfs_server.environment().items():
        monkeypatch.setenv(name, value)

    provider = opened(seaweedfs_server, "contract", credentials=None)

    provider.check()
    provider.close()

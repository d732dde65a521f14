"""S3 against a real server, over http and over TLS: the contract, and what goes wrong."""

from collections.abc import Iterator

import pytest
from contracts.provider_contract import ProviderContract
from servers.seaweedfs import SeaweedFS

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import Credentials
from backgate.gateway.provider import Provider
from backgate.gateway.providers import open_provider

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

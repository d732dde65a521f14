"""Google Cloud Storage against fake-gcs-server: the contract, and what goes wrong."""

from collections.abc import Iterator

import pytest
from servers.gcs import FakeGcs

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials
from backgate.gateway.provider import Provider
from backgate.gateway.providers import open_provider
from backgate.gateway.testing.provider_contract import ProviderContract

pytestmark = [pytest.mark.live, pytest.mark.slow]


def opened(
    server: FakeGcs,
    bucket: str,
    credentials: AnyCredentials | None = None,
    endpoint_url: str | None = None,
) -> Provider:
    """The bucket as a repository would open it."""
    config = RepositoryConfig(
        name="test",
        url=f"gs://{bucket}",
        endpoint_url=endpoint_url or server.endpoint_url,
        ca_bundle=server.ca_bundle,
    )
    return open_provider(config, credentials)[0]


@pytest.fixture(scope="module")
def bucket(gcs_tls_server: FakeGcs) -> Iterator[Provider]:
    provider = opened(gcs_tls_server, gcs_tls_server.bucket("contract"))
    yield provider
    provider.close()


class TestFakeGcs(ProviderContract):
    @pytest.fixture
    def provider(self, bucket: Provider, gcs_tls_server: FakeGcs) -> Provider:
        gcs_tls_server.empty("contract")
        return bucket

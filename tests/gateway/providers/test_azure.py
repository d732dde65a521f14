"""Azure against Azurite: the contract, and what goes wrong."""

from collections.abc import Iterator

import pytest
from servers.azurite import Azurite

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials, AzureCredentials
from backgate.gateway.provider import Provider
from backgate.gateway.providers import open_provider
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

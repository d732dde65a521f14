"""S3 against servers that differ: the contract, over TLS, where SDKs' defaults fail."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from msgspec import structs
from servers.s3 import S3Server

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import Credentials
from backgate.gateway.provider import KeyRules, PendingUpload, Provider
from backgate.gateway.providers import open_provider
from backgate.gateway.testing.provider_contract import ProviderContract

pytestmark = [pytest.mark.live, pytest.mark.slow]


def opened(server: S3Server, bucket: str, profile: str) -> Provider:
    """The bucket as a repository would open it."""
    config = RepositoryConfig(
        name="test",
        url=f"s3://{bucket}",
        provider=profile,
        endpoint_url=server.endpoint_url,
        ca_bundle=server.ca_bundle,
    )
    return open_provider(config, Credentials(server.access_key, server.secret_key))[0]


@pytest.fixture(scope="module")
def ceph_bucket(ceph_server: S3Server) -> Iterator[Provider]:
    provider = opened(ceph_server, ceph_server.bucket("contract"), "ceph")
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def moto_bucket(moto_server: S3Server) -> Iterator[Provider]:
    # The dot in its name keeps it out of the host's, where Amazon's buckets are.
    provider = opened(moto_server, moto_server.bucket("contract.test"), "aws")
    keys = KeyRules(refused="\r\n")  # where its routes end
    provider.abilities = replace(provider.abilities, keys=keys)
    yield provider
    provider.close()


class TestCephRadosGateway(ProviderContract):
    @pytest.fixture
    def provider(self, ceph_bucket: Provider, ceph_server: S3Server) -> Provider:
        ceph_server.empty("contract")
        return ceph_bucket


class TestMoto(ProviderContract):
    @pytest.fixture
    def provider(self, moto_bucket: Provider, moto_server: S3Server) -> Provider:
        moto_server.empty("contract.test")
        return moto_bucket

    def test_a_body_that_is_not_its_checksum_is_refused(self, provider: Provider) -> None:
        """moto looks at none."""
        for checksum in provider.checksums:
            provider.put_damaged("a", checksum)

    @pytest.fixture(autouse=True)
    def _uploads_of_today(self, moto_bucket: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
        """moto says of each upload that it was begun in 2010."""
        told = moto_bucket.uploads

        def uploads(prefix: str = "") -> list[PendingUpload]:
            return [structs.replace(one, begun_ns=time.time_ns()) for one in told(prefix)]

        monkeypatch.setattr(moto_bucket, "uploads", uploads)

"""The contract, through a proxy that has the weaknesses of each provider: what the gateway sees."""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from servers.faultproxy import FaultProxy, fault_proxy
from servers.faults.rulesets import NAMES, rule_set
from servers.seaweedfs import SeaweedFS
from support.blocking import waited_out

from backgate.gateway.credentials import Credentials
from backgate.gateway.profiles import Profile, profile
from backgate.gateway.provider import Provider
from backgate.gateway.providers.s3 import S3
from backgate.gateway.providers.s3_client import Connection
from backgate.gateway.testing.provider_contract import ODD_KEYS, ProviderContract

pytestmark = [pytest.mark.live, pytest.mark.slow]

BUCKET = "emulated"
TELLING = ("decomposed", "plus", "control")  # of the odd keys
ONCE = {  # what no rule set has to do with: shown behind one of them
    "test_the_store_is_there",
    "test_below_a_file_there_is_nothing",
    "test_a_prefix_is_not_an_object",
    "test_a_range_is_a_slice",
    "test_an_empty_object_reads_as_nothing",
    "test_the_etag_changes_with_the_content",
    "test_any_kind_of_body_is_stored",
    "test_metadata_reads_back",
    "test_metadata_names_are_lower_case",
    "test_metadata_beyond_the_limit_is_refused",
    "test_a_part_sent_again_replaces_the_first",
    "test_a_commit_replaces_the_object",
    "test_a_commit_without_one_of_its_parts_fails",
    "test_a_part_of_an_absent_object_is_not_found",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = NAMES[:1] if metafunc.function.__name__ in ONCE else NAMES
    metafunc.parametrize("emulated", names, indirect=True, scope="module")


def as_emulated(name: str, behind: Profile, *, lists_here: bool) -> Profile:
    """The profile of `name`, without what the server behind the proxy cannot do."""
    real = profile(name)
    return msgspec.structs.replace(
        real,
        addressing="path",
        https_only=False,
        keys=behind.keys,
        limits=behind.limits,
        markers_are_objects=behind.markers_are_objects,
        etag_multipart_md5=behind.etag_multipart_md5,
        forgets_prefixes=lists_here,
        lists_in_order=real.lists_in_order and lists_here,
    )


@pytest.fixture(scope="module")
def proxy(seaweedfs_server: SeaweedFS) -> Iterator[FaultProxy]:
    seaweedfs_server.bucket(BUCKET)
    with fault_proxy(seaweedfs_server.endpoint_url) as running:
        yield running


@pytest.fixture(scope="module")
def emulated(
    request: pytest.FixtureRequest, proxy: FaultProxy, seaweedfs_server: SeaweedFS
) -> Iterator[Provider]:
    proxy.emulate(rule_set(request.param, within_the_contract=True))
    lists_here = proxy.listings is not None
    connection = Connection(
        bucket=BUCKET,
        endpoint_url=proxy.url,
        region="us-east-1",
        profile=as_emulated(request.param, profile("seaweedfs"), lists_here=lists_here),
        credentials=Credentials(seaweedfs_server.access_key, seaweedfs_server.secret_key),
    )
    with waited_out(S3(connection)) as provider:
        yield provider
        provider.close()


class TestEmulated(ProviderContract):
    """The whole suite; of what differs only in the data, a few that tell most."""

    @pytest.fixture
    def provider(self, emulated: Provider, seaweedfs_server: SeaweedFS) -> Provider:
        seaweedfs_server.empty(BUCKET)
        return emulated

    @pytest.mark.parametrize("name", TELLING)
    def test_a_key_is_kept_exactly_or_refused(self, name: str, provider: Provider) -> None:
        super().test_a_key_is_kept_exactly_or_refused(ODD_KEYS[name], provider)

    @pytest.mark.parametrize(("start", "stop"), [(3, 7), (5, 100), (10, 11)])
    def test_a_range_is_a_slice(self, start: int, stop: int, provider: Provider) -> None:
        super().test_a_range_is_a_slice(start, stop, provider)

    @pytest.mark.parametrize("kind", [bytes])
    def test_any_kind_of_body_is_stored(
        self, kind: Callable[[bytes], bytes], provider: Provider
    ) -> None:
        super().test_any_kind_of_body_is_stored(kind, provider)

    @pytest.mark.parametrize("text", ["é", " blanks "])
    def test_metadata_reads_back(self, text: str, provider: Provider) -> None:
        super().test_metadata_reads_back(text, provider)

"""What a profile says of a store is how the store is spoken to."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from msgspec.structs import replace
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.seaweedfs import SeaweedFS

from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import Refused, Unreachable, Unsupported
from backgate.gateway.profiles import profile
from backgate.gateway.provider import Provider
from backgate.gateway.providers.s3 import S3
from backgate.gateway.providers.s3_client import Connection
from backgate.gateway.providers.s3_listing import Dialect
from backgate.gateway.testing.provider_contract import ProviderContract, fill, keys_of, pages_of

pytestmark = pytest.mark.live


@contextmanager
def speaking(url: str, **dialect: object) -> Iterator[S3]:
    """A bucket that is spoken to in a changed dialect of SeaweedFS."""
    changed = replace(profile("seaweedfs"), **dialect)
    keys = Credentials("testkey", "testsecret")
    provider = S3(
        Connection(
            bucket="dialects",
            endpoint_url=url,
            region="us-east-1",
            profile=changed,
            credentials=keys,
        )
    )
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def bucket(seaweedfs_server: SeaweedFS) -> SeaweedFS:
    seaweedfs_server.bucket("dialects")
    return seaweedfs_server


@pytest.fixture(scope="module")
def proxy(bucket: SeaweedFS) -> Iterator[FaultProxy]:
    with fault_proxy(bucket.endpoint_url) as running:
        yield running


@pytest.fixture(scope="module")
def bucket_of_version_one(bucket: SeaweedFS) -> Iterator[Provider]:
    with speaking(bucket.endpoint_url, list_version=1) as provider:
        yield provider


@pytest.fixture
def requests(proxy: FaultProxy, bucket: SeaweedFS) -> FaultProxy:
    """The proxy, empty as its store is."""
    bucket.empty("dialects")
    for past in (proxy.rules, proxy.requests, proxy.headers):
        past.clear()
    return proxy


class TestListVersionOne(ProviderContract):
    @pytest.fixture
    def provider(self, bucket_of_version_one: Provider, bucket: SeaweedFS) -> Provider:
        bucket.empty("dialects")
        return bucket_of_version_one


@pytest.mark.parametrize(
    "dialect", [{"list_version": 1}, {"list_start_after": False}, {"list_url_encode": False}]
)
def test_a_listing_is_whole_in_every_dialect(
    dialect: dict[str, object], requests: FaultProxy
) -> None:
    keys = ["a b", "a&b", "a+c", "b/1", "b/2", "b/c/3", "c%2F", "é/x"]
    with speaking(requests.url, **dialect) as provider:
        fill(provider, keys)

        for limit in (1, 2, 3, 100):
            assert sorted(keys_of(provider, limit=limit)) == sorted(keys)
            assert sorted(keys_of(provider, after="b/1", limit=limit)) == keys[4:]
            prefixes = [one for page in pages_of(provider, "", "/") for one in page.prefixes]
            assert sorted(prefixes) == ["b/", "é/"]

    asked = [target for target in requests.requests if "max-keys" in target]
    assert asked
    is_encoded = dialect.get("list_url_encode", True)
    uses_markers = "list_url_encode" not in dialect
    assert all(("encoding-type=url" in target) == is_encoded for target in asked)
    assert all(("list-type=2" in target) != uses_markers for target in asked)
    assert not (uses_markers and any("start-after" in target for target in asked))


def test_a_listing_of_version_one_goes_on_where_it_says_or_behind_its_last_name() -> None:
    dialect = Dialect(uses_markers=True, is_encoded=True)
    start = b"<ListBucketResult><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>"
    told = b"<NextMarker>a%2Bb</NextMarker>"
    key = (
        b"<Contents><Key>k%20k</Key><Size>1</Size>"
        b"<LastModified>2026-11-22T14:05:28Z</LastModified></Contents>"
    )
    prefix = b"<CommonPrefixes><Prefix>p%20p/</Prefix></CommonPrefixes>"
    end = b"</ListBucketResult>"

    assert dialect.page(start + told + key + end).token == "a+b"
    assert dialect.page(start + told + key.replace(b"k%20k", b"a%252Bb") + end).token == "a%2Bb"
    assert dialect.page(start + key + end).token == "k k"
    assert dialect.page(start + key + prefix + end).token == "p p/"
    with pytest.raises(ValueError, match="no NextMarker"):
        dialect.page(start + end)


@pytest.mark.parametrize("asks", [True, False])
def test_a_body_is_announced_only_where_that_is_worth_it(asks: bool, requests: FaultProxy) -> None:
    with speaking(requests.url, expect_100=asks) as provider:
        provider.put("a", b"body")

        assert provider.get("a", 0, 9) == b"body"
    put = requests.headers[[one.partition(" ")[0] for one in requests.requests].index("PUT")]
    assert (put.get("expect", "").lower() == "100-continue") == asks


def test_what_passes_at_one_store_is_a_refusal_at_another(requests: FaultProxy) -> None:
    body = b"<Error><Code>RequestRateLimitExceeded</Code><Message>limit</Message></Error>"
    requests.rules.append(Rule(status=403, body=body))
    codes = profile("wasabi").retry_codes

    for retry_codes, error in ((codes, Unreachable), ([], Refused)):
        with speaking(requests.url, retry_codes=retry_codes) as provider:
            for call in (
                partial(provider.put, "a", b""),
                partial(provider.get, "a", 0, 1),
                provider.page,
            ):
                with pytest.raises(error):
                    call()


def test_a_store_that_copies_nothing_is_not_asked_to(requests: FaultProxy) -> None:
    with speaking(requests.url, copies_objects=False) as provider:
        provider.put("a", b"")
        requests.requests.clear()

        with pytest.raises(Unsupported):
            provider.copy("a", "b")

    assert requests.requests == []


@pytest.mark.parametrize(
    ("condition", "words"),
    [("ignored", "ignores"), ("rejected", "rejects"), ("unknown", "not known.*backgate validate")],
)
def test_a_condition_that_may_not_hold_is_refused_with_the_reason(
    condition: str, words: str, requests: FaultProxy
) -> None:
    with (
        speaking(requests.url, conditional_put=condition) as provider,
        pytest.raises(Unsupported, match=words),
    ):
        provider.put("a", b"", if_absent=True)

    assert requests.requests == []

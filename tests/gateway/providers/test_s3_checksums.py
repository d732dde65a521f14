"""What vouches for a body on its way to an S3 store: what is sent, refused, noticed, sent again."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace
from servers.faultproxy import FaultProxy, Rule, certificate_for, fault_proxy
from servers.s3 import S3Server
from servers.seaweedfs import SeaweedFS
from trio.testing import MockClock

from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import NotAsSent, StoreError, Unreachable
from backgate.gateway.profiles import profile
from backgate.gateway.providers.s3 import S3
from backgate.gateway.providers.s3_client import Connection
from backgate.gateway.store import ObjectStore

pytestmark = pytest.mark.live

BUCKET = "summed"
DATA = bytes(range(256)) * 4096  # a mebibyte
CRC32C, MD5 = "x-amz-checksum-crc32c", "content-md5"
KINDS = ("crc32c", "sha256", "md5")
CHECKED = ("crc32c", "md5")  # by SeaweedFS: it looks at no body's SHA-256
ASKS_FOR_MD5 = (
    b"<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is "
    b"required for Put Object requests with Object Lock parameters</Message></Error>"
)


@contextmanager
def summing(
    url: str, kind: str, ca_bundle: str | None = None, bucket: str = BUCKET, **dialect: str
) -> Iterator[S3]:
    """The bucket of a store that is said to check checksums of `kind`."""
    provider = S3(
        Connection(
            bucket=bucket,
            endpoint_url=url,
            region="us-east-1",
            profile=replace(profile("seaweedfs"), upload_checksum=kind, **dialect),
            credentials=Credentials("testkey", "testsecret"),
            ca_bundle=ca_bundle,
        )
    )
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def server(seaweedfs_server: SeaweedFS) -> SeaweedFS:
    seaweedfs_server.bucket(BUCKET)
    return seaweedfs_server


@pytest.fixture(scope="module")
def running_proxies(
    server: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[FaultProxy, str | None]]]:
    context, bundle = certificate_for(tmp_path_factory.mktemp("certificates"))
    with (
        fault_proxy(server.endpoint_url) as plain,
        fault_proxy(server.endpoint_url, context) as encrypted,
    ):
        yield {"http": (plain, None), "https": (encrypted, bundle)}


@pytest.fixture(params=["http", "https"])
def line(
    request: pytest.FixtureRequest,
    running_proxies: dict[str, tuple[FaultProxy, str | None]],
    server: SeaweedFS,
) -> tuple[FaultProxy, str | None]:
    """A proxy, and what its certificate is to be trusted by."""
    server.empty(BUCKET)
    proxy, bundle = running_proxies[request.param]
    for past in (proxy.rules, proxy.requests, proxy.headers):
        past.clear()
    proxy.drops = frozenset()
    return proxy, bundle


def bodies(proxy: FaultProxy) -> list[dict[str, str]]:
    """The headers of the requests with which bodies went."""
    pairs = zip(proxy.requests, proxy.headers, strict=True)
    return [headers for asked, headers in pairs if asked.startswith("PUT")]


@pytest.mark.parametrize("kind", KINDS)
async def test_one_checksum_goes_with_each_body(
    kind: str, line: tuple[FaultProxy, str | None]
) -> None:
    proxy, bundle = line
    with summing(proxy.url, kind, bundle) as provider:
        store = ObjectStore(provider)
        await store.put("first", DATA)
        upload = await store.begin_upload("parts")
        parts = [(1, await store.put_part("parts", upload, 1, DATA * 5))]
        proxy.requests.clear(), proxy.headers.clear()

        await store.put("a", DATA)
        parts.append((2, await store.put_part("parts", upload, 2, DATA)))
        await store.commit_upload("parts", upload, parts)

        assert await store.get("a", 0, len(DATA)) == DATA
        assert (await store.head("parts")).size == 6 * len(DATA)
    for headers in bodies(proxy):
        assert (CRC32C in headers) == (kind == "crc32c")
        assert (MD5 in headers) == (kind == "md5")
        is_signed = headers["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD"
        assert is_signed == (kind == "sha256")


@pytest.mark.parametrize("payload_hash", ["checked", "unknown"])
def test_over_http_the_signature_vouches_too_unless_the_store_looks_at_none(
    payload_hash: str, line: tuple[FaultProxy, str | None]
) -> None:
    proxy, bundle = line
    with summing(proxy.url, "md5", bundle, payload_hash=payload_hash) as provider:
        provider.put("a", DATA)

    (headers,) = bodies(proxy)
    sent = "UNSIGNED-PAYLOAD" if bundle else hashlib.sha256(DATA).hexdigest()
    assert headers["x-amz-content-sha256"] == sent


@pytest.mark.parametrize("kind", CHECKED)
def test_a_wrong_checksum_is_refused(kind: str, line: tuple[FaultProxy, str | None]) -> None:
    proxy, bundle = line
    with summing(proxy.url, kind, bundle) as provider:
        assert provider.checksums[0] == kind
        with pytest.raises(NotAsSent, match="put 'a'") as caught:
            provider.put_damaged("a", kind)

        assert not caught.value.is_stored
        assert not provider.page().objects


@pytest.mark.parametrize("kind", CHECKED)
async def test_a_body_that_was_damaged_on_its_way_is_sent_again(
    kind: str, line: tuple[FaultProxy, str | None], autojump_clock: MockClock
) -> None:
    proxy, bundle = line
    with summing(proxy.url, kind, bundle) as provider:
        store = ObjectStore(provider)
        await store.put("first", b"")  # which tells whether the store knows the checksum
        upload = await store.begin_upload("parts")
        for target in ("/a", "partNumber=1", "/lock"):
            proxy.rules.append(Rule(match=f"PUT .*{target}", times=2, upload_flips_at=300_000))

        await store.put("a", DATA)
        part = await store.put_part("parts", upload, 1, DATA)
        await store.commit_upload("parts", upload, [(1, part)])
        await store.put("lock", DATA, if_absent=True)

        for key in ("a", "parts", "lock"):
            assert await store.get(key, 0, len(DATA)) == DATA
        assert store.counters.retries == 6


@pytest.mark.parametrize("kind", CHECKED)
def test_a_body_that_changes_in_memory_between_two_attempts_is_refused(
    kind: str, line: tuple[FaultProxy, str | None]
) -> None:
    proxy, bundle = line
    with summing(proxy.url, kind, bundle) as provider:
        body = bytearray(DATA)
        call = provider.putting("a", body)
        proxy.rules.append(Rule(match="PUT", times=1, status=503))

        with pytest.raises(Unreachable):
            call()
        body[5] ^= 1
        with pytest.raises(NotAsSent):
            call()


async def test_a_store_that_checks_nothing_is_found_out_by_its_etag(
    running_proxies: dict[str, tuple[FaultProxy, str | None]],
    server: SeaweedFS,
    autojump_clock: MockClock,
) -> None:
    server.empty(BUCKET)
    proxy, bundle = running_proxies["https"]
    proxy.drops = frozenset({MD5})
    proxy.rules[:] = [Rule(match="PUT", skip=1, times=2, upload_flips_at=300_000)]
    with summing(proxy.url, "md5", bundle) as provider:
        store = ObjectStore(provider)
        await store.put("b", DATA)

        with pytest.raises(NotAsSent, match=f"not {hashlib.md5(DATA).hexdigest()}") as caught:
            provider.put("a", DATA)
        assert caught.value.is_stored
        await store.put("lock", DATA, if_absent=True)

        assert await store.get("lock", 0, len(DATA)) == DATA
        assert store.counters.retries == 1


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"x-amz-checksum-crc32c": "AAAAAA=="}, "has bytes of CRC-32C AAAAAA==, not "),
        ({}, "no longer tells what it has"),
    ],
)
def test_an_answer_that_does_not_vouch_for_a_body_is_no_answer(
    headers: dict[str, str], words: str, line: tuple[FaultProxy, str | None]
) -> None:
    proxy, bundle = line
    with summing(proxy.url, "crc32c", bundle) as provider:
        provider.put("first", DATA)
        other = Rule(match="PUT", times=1, status=200, headers={"ETag": '"1"', **headers})
        proxy.rules.append(other)

        with pytest.raises(NotAsSent, match=words) as caught:
            provider.put("a", DATA)

        assert caught.value.is_stored
        provider.put("a", DATA)


def test_a_directorys_marker_does_not_cost_an_md5_of_what_follows(
    line: tuple[FaultProxy, str | None],
) -> None:
    proxy, bundle = line
    with summing(proxy.url, "crc32c", bundle) as provider:
        for key, body in (("first", DATA), ("directory/", b""), ("directory/file", DATA)):
            provider.put(key, body)

    assert MD5 not in bodies(proxy)[-1]


async def test_a_store_that_knows_no_crc32c_gets_an_md5_too(
    line: tuple[FaultProxy, str | None],
) -> None:
    proxy, bundle = line
    proxy.drops = frozenset({CRC32C, "x-amz-checksum-algorithm"})
    with summing(proxy.url, "crc32c", bundle) as provider:
        store = ObjectStore(provider)

        for key in ("a", "b"):
            await store.put(key, DATA)
        upload = await store.begin_upload("parts")
        part = await store.put_part("parts", upload, 1, DATA)
        await store.commit_upload("parts", upload, [(1, part)])

        assert await store.get("parts", 0, len(DATA)) == DATA
    assert [MD5 in headers for headers in bodies(proxy)] == [True] * 3


@pytest.mark.parametrize("kind", ["crc32c", "sha256"])
async def test_a_store_that_asks_for_an_md5_gets_it_from_then_on(
    kind: str, line: tuple[FaultProxy, str | None]
) -> None:
    proxy, bundle = line
    with summing(proxy.url, kind, bundle) as provider:
        store = ObjectStore(provider)
        await store.put("first", DATA)
        proxy.rules.append(Rule(match="PUT", lacks=MD5, status=400, body=ASKS_FOR_MD5))
        proxy.requests.clear(), proxy.headers.clear()

        await store.put("a", DATA)
        await store.put("b", DATA)

        assert [MD5 in headers for headers in bodies(proxy)] == [False, True, True]
        assert store.counters.retries == 0
        assert provider.learnt() == {"upload_checksum": "md5"}


def test_a_store_that_asks_for_something_else_is_told_as_it_says(
    line: tuple[FaultProxy, str | None],
) -> None:
    proxy, bundle = line
    proxy.rules.append(Rule(match="PUT", status=400, code="InvalidRequest"))
    with (
        summing(proxy.url, "sha256", bundle) as provider,
        pytest.raises(StoreError, match="InvalidRequest"),
    ):
        provider.put("a", DATA)

    assert len(proxy.requests) == 1


@pytest.mark.slow
def test_ceph_checks_signatures_and_md5s_and_no_crc32c(ceph_server: S3Server) -> None:
    bucket = ceph_server.bucket("sums")
    with summing(ceph_server.endpoint_url, "sha256", ceph_server.ca_bundle, bucket) as provider:
        body, upload = bytearray(DATA), provider.begin_upload("parts")
        for call in (provider.putting("a", body), provider.putting_part("parts", upload, 1, body)):
            call()
            body[5] ^= 1
            with pytest.raises(NotAsSent):
                call()
            body[5] ^= 1
        with pytest.raises(NotAsSent):
            provider.put_damaged("a", "md5")
        assert provider.get("a", 0, len(DATA)) == DATA
        provider.put_damaged("a", "crc32c")

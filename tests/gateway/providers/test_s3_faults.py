"""S3 on a bad network: what is waited out, what is settled, and what is said in the end."""

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
import trio
from servers.faultproxy import FaultProxy, Rule, certificate_for, fault_proxy
from servers.seaweedfs import SeaweedFS
from trio.testing import MockClock

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.copies import Copies
from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import (
    AlreadyThere,
    Denied,
    StoreError,
    StoreFull,
    Unreachable,
    WrongClock,
    WrongCredentials,
)
from backgate.gateway.journal import Journal
from backgate.gateway.parts import PartPlan
from backgate.gateway.provider import Provider
from backgate.gateway.providers import open_provider, s3_client, s3_requests
from backgate.gateway.store import ObjectStore
from backgate.gateway.threads import GET_THREADS
from backgate.gateway.units import MIB
from backgate.gateway.uploads import Uploads

pytestmark = pytest.mark.live

DATA = bytes(range(256)) * 4096  # a mebibyte
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>"


@pytest.fixture(scope="module")
def running_proxy(seaweedfs_server: SeaweedFS) -> Iterator[FaultProxy]:
    with fault_proxy(seaweedfs_server.endpoint_url) as running:
        yield running


@pytest.fixture(scope="module")
def provider(running_proxy: FaultProxy, seaweedfs_server: SeaweedFS) -> Iterator[Provider]:
    seaweedfs_server.bucket("faults")
    provider = opened(running_proxy.url, seaweedfs_server)
    yield provider
    provider.close()


@pytest.fixture
def proxy(running_proxy: FaultProxy) -> FaultProxy:
    for past in (running_proxy.rules, running_proxy.requests, running_proxy.headers):
        past.clear()
    return running_proxy


@pytest.fixture
def store(provider: Provider, proxy: FaultProxy, seaweedfs_server: SeaweedFS) -> ObjectStore:
    """A store that holds `a`; its faults are in `proxy.rules`."""
    seaweedfs_server.empty("faults")
    provider.put("a", DATA)
    proxy.requests.clear()
    return ObjectStore(provider)


def opened(url: str, server: SeaweedFS, ca_bundle: str | None = None) -> Provider:
    config = RepositoryConfig(
        name="test",
        url="s3://faults",
        provider="seaweedfs",
        endpoint_url=url,
        ca_bundle=ca_bundle,
    )
    keys = Credentials(server.access_key, server.secret_key)
    return open_provider(config, keys)[0]


async def test_a_busy_store_is_asked_again_when_it_says(
    store: ObjectStore, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    busy = Rule(match="GET", times=3, status=503, body=SLOW_DOWN, headers={"Retry-After": "7"})
    proxy.rules.append(busy)
    before = trio.current_time()

    assert await store.get("a", 0, len(DATA)) == DATA

    assert trio.current_time() - before >= 21
    assert store.counters.retries == 3
    assert "SlowDown" in store.counters.last_error


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_any_fault_of_a_store_is_waited_out(
    status: int, store: ObjectStore, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    proxy.rules.append(Rule(times=2, status=status, body=b"<html>not XML of S3</html>"))
    assert (await store.head("a")).size == len(DATA)
    proxy.rules.append(Rule(times=2, status=status, body=b"<html>not XML of S3</html>"))
    assert len((await store.page()).objects) == 1
    proxy.rules.append(Rule(times=2, status=status, body=b"<html>not XML of S3</html>"))
    await store.put("b", b"")
    proxy.rules.append(Rule(times=2, status=status, body=b"<html>not XML of S3</html>"))
    assert await store.delete(["a", "b"]) == {}

    assert store.counters.retries == 8


@pytest.mark.parametrize(
    "rule",
    [
        Rule(match="GET", times=2, reset_after=300_000),
        Rule(match="GET", times=2, truncate_after=300_000),
        Rule(match="GET", times=2, is_refused=True),
        Rule(match="GET", times=2, is_lost=True),
    ],
    ids=["reset in the body", "short body", "reset before", "reset instead of an answer"],
)
async def test_a_read_that_breaks_off_is_made_again(
    rule: Rule, store: ObjectStore, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    proxy.rules.append(rule)

    assert await store.get("a", 5, len(DATA)) == DATA[5:]

    assert store.counters.retries == 2


async def test_a_page_that_breaks_off_is_asked_for_again(
    store: ObjectStore, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    proxy.rules.append(Rule(match="list-type", times=1, truncate_after=150))
    proxy.rules.append(Rule(match="list-type", times=1, reset_after=150))

    assert [info.key for info in (await store.page()).objects] == ["a"]

    assert store.counters.retries == 2


@pytest.mark.slow
async def test_a_stalled_answer_is_a_fault_after_the_socket_time_out(
    seaweedfs_server: SeaweedFS,
    store: ObjectStore,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_requests, "ANSWER_WITHIN", 0.3)
    monkeypatch.setattr(s3_client, "ANSWER_WITHIN", 0.3)
    hasty = ObjectStore(opened(proxy.url, seaweedfs_server))
    proxy.rules.append(Rule(match="GET", times=1, stall_after=300_000))
    proxy.rules.append(Rule(match="PUT", times=1, delay=60))

    with pytest.raises(Unreachable, match=r"(?i)timed? ?out"):
        await hasty.patient(0).get("a", 0, len(DATA))
    with pytest.raises(Unreachable, match=r"(?i)timed? ?out"):
        await hasty.patient(0).put("b", DATA)

    assert await hasty.get("a", 0, len(DATA)) == DATA
    await hasty.aclose()


async def test_a_put_whose_answer_was_lost_is_made_again(
    store: ObjectStore, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    proxy.rules.append(Rule(match="PUT", times=1, is_lost=True))

    info = await store.put("b", DATA)

    assert (await store.head("b")).etag == info.etag == hashlib.md5(DATA).hexdigest()
    assert store.counters.retries == 1


async def test_a_conditional_put_whose_answer_was_lost_counts_as_done(
    store: ObjectStore, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    proxy.rules.append(Rule(match="PUT", times=1, is_lost=True))

    info = await store.put("lock", b"mine", {"mode": "33188"}, if_absent=True)

    assert info.metadata == {"mode": "33188"}
    with pytest.raises(AlreadyThere):
        await store.put("lock", b"theirs", if_absent=True)
    assert await store.get("lock", 0, 9) == b"mine"


async def test_an_upload_survives_faults_in_every_step(
    store: ObjectStore, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    block = DATA * 5
    proxy.rules.extend(
        [
            Rule(match=r"POST .*\?uploads", times=1, is_refused=True),
            Rule(match=r"PUT .*partNumber=1", times=1, is_lost=True),
            Rule(match=r"PUT .*partNumber=2", times=1, status=500),
            Rule(match=r"POST .*uploadId", times=1, is_lost=True),
        ]
    )

    upload = await store.begin_upload("b", {"mode": "33188"})
    parts = [(n, await store.put_part("b", upload, n, block)) for n in (1, 2)]
    info = await store.commit_upload("b", upload, parts)

    assert (info.size, info.metadata) == (2 * len(block), {"mode": "33188"})
    assert await store.get("b", len(block) - 1, len(block) + 1) == block[-1:] + block[:1]
    assert store.counters.retries >= 4


async def test_an_outage_ends_with_patience(
    store: ObjectStore, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    proxy.rules.append(Rule(is_refused=True))

    with pytest.raises(Unreachable, match="s3://faults: head 'a'"):
        await store.patient(60).head("a")

    assert store.counters.retries > 5


@pytest.mark.parametrize(
    ("status", "code", "expected", "words"),
    [
        (403, "AccessDenied", Denied, "access denied"),
        (403, "InvalidAccessKeyId", WrongCredentials, "does not know the access key"),
        (403, "SignatureDoesNotMatch", WrongCredentials, "secret key is wrong"),
        (403, "RequestTimeTooSkewed", WrongClock, "clock differs too much from the store's: set"),
        (400, "ExpiredToken", WrongCredentials, "session token"),
        (403, "QuotaExceeded", StoreFull, "QuotaExceeded"),
        (507, "XMinioStorageFull", StoreFull, "StorageFull"),
        (400, "SomethingNew", StoreError, "SomethingNew"),
        (301, "PermanentRedirect", StoreError, "another region"),
    ],
)
async def test_a_sure_answer_is_said_at_once(
    status: int,
    code: str,
    expected: type[StoreError],
    words: str,
    store: ObjectStore,
    proxy: FaultProxy,
) -> None:
    body = f"<Error><Code>{code}</Code><Message>as the store puts it</Message></Error>"
    proxy.rules.append(Rule(status=status, body=body.encode()))

    for call in (lambda: store.get("a", 0, 1), lambda: store.put("b", b""), lambda: store.page()):
        with pytest.raises(expected, match=words) as caught:
            await call()
        assert type(caught.value) is expected
        assert "testsecret" not in str(caught.value)

    assert store.counters.retries == 0


@pytest.mark.parametrize("status", [400, 411, 501])
async def test_a_store_that_deletes_no_batches_is_asked_one_by_one(
    status: int, proxy: FaultProxy, store: ObjectStore, seaweedfs_server: SeaweedFS
) -> None:
    store = ObjectStore(opened(proxy.url, seaweedfs_server))  # one that has not learnt it yet
    proxy.rules.append(Rule(match=r"POST /faults\?delete", status=status))
    await store.put("b", b"")

    assert await store.delete(["a", "b", "absent"]) == {}
    assert await store.delete(["a", "b"]) == {}

    assert [line.split()[0] for line in proxy.requests[1:]] == ["POST"] + ["DELETE"] * 5
    assert not (await store.page()).objects
    await store.aclose()


async def test_a_body_larger_than_asked_for_is_not_taken(
    store: ObjectStore, proxy: FaultProxy
) -> None:
    whole = Rule(match="GET", status=200, body=DATA)
    proxy.rules.append(whole)

    assert await store.get("a", 0, 10) == DATA[:10]
    with pytest.raises(StoreError, match="ignores ranges"):
        await store.get("a", 5, 10)
    whole.status, whole.headers = 206, {"Content-Range": "bytes 7-9/100"}
    with pytest.raises(StoreError, match="another range"):
        await store.get("a", 5, 10)


@pytest.mark.parametrize(
    "body",
    [
        b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<html><body>Please log in</body></html>",
        b"",
    ],
    ids=["no size", "no token", "a portal", "nothing"],
)
async def test_an_answer_that_is_no_listing_is_not_an_empty_one(
    body: bytes, store: ObjectStore, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(match="list-type", status=200, body=body))

    with pytest.raises(Unreachable, match="page ''"):
        await store.patient(0).page()


async def test_no_request_waits_for_100_continue_or_carries_a_checksum_in_a_trailer(
    seaweedfs_server: SeaweedFS, tmp_path: Path, store: ObjectStore
) -> None:
    context, bundle = certificate_for(tmp_path)
    with fault_proxy(seaweedfs_server.endpoint_url, context) as proxy:
        encrypted = ObjectStore(opened(proxy.url, seaweedfs_server, bundle))
        await encrypted.put("b", DATA, {"name": "é"})
        upload = await encrypted.begin_upload("c")
        part = await encrypted.put_part("c", upload, 1, DATA)
        await encrypted.commit_upload("c", upload, [(1, part)])
        assert await encrypted.get("b", 0, len(DATA)) == DATA
        assert await encrypted.delete(["a", "b"]) == {}
        await encrypted.aclose()

    for line, headers in zip(proxy.requests, proxy.headers, strict=True):
        assert "expect" not in headers
        assert "aws-chunked" not in headers.get("content-encoding", "")
        assert "x-amz-trailer" not in headers
        assert not [name for name in headers if name.startswith("x-amz-sdk-checksum")]
        if "?delete" in line:
            assert "content-md5" in headers
            assert not [name for name in headers if name.startswith("x-amz-checksum")]
        if line.startswith("PUT"):
            assert "x-amz-checksum-crc32c" in headers
            assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"


async def test_a_certificate_that_is_not_trusted_is_not_retried(
    seaweedfs_server: SeaweedFS, tmp_path: Path, store: ObjectStore
) -> None:
    context, _ = certificate_for(tmp_path)
    with fault_proxy(seaweedfs_server.endpoint_url, context) as proxy:
        stranger = ObjectStore(opened(proxy.url, seaweedfs_server))
        for call in (lambda: stranger.head("a"), lambda: stranger.put("b", b"")):
            with pytest.raises(StoreError, match="ca_bundle") as caught:
                await call()
            assert not isinstance(caught.value, Unreachable)
        await stranger.aclose()


async def test_a_server_that_is_not_there_is_waited_for(
    seaweedfs_server: SeaweedFS, autojump_clock: MockClock
) -> None:
    nobody = ObjectStore(opened("http://127.0.0.1:9", seaweedfs_server))

    with pytest.raises(Unreachable):
        await nobody.patient(300).check()

    assert nobody.counters.retries > 10
    await nobody.aclose()


async def test_a_body_that_trickles_frees_its_place_and_is_asked_for_again(
    store: ObjectStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_requests, "START", 0.5)
    monkeypatch.setattr(s3_requests, "SLOWEST", 100 * len(DATA))
    proxy.rules.append(Rule(match="GET", times=GET_THREADS, bytes_per_second=1000, piece=100))

    async with trio.open_nursery() as nursery:
        for _ in range(GET_THREADS + 1):
            nursery.start_soon(store.get, "a", 0, len(DATA))

    assert store.counters.bytes_in == (GET_THREADS + 1) * len(DATA)
    assert store.counters.retries >= GET_THREADS


async def test_a_body_that_trickles_over_tls_is_given_up_too(
    seaweedfs_server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: ObjectStore
) -> None:
    monkeypatch.setattr(s3_requests, "START", 0.5)
    monkeypatch.setattr(s3_requests, "SLOWEST", 100 * len(DATA))
    context, bundle = certificate_for(tmp_path)
    with fault_proxy(seaweedfs_server.endpoint_url, context) as proxy:
        encrypted = ObjectStore(opened(proxy.url, seaweedfs_server, bundle))
        proxy.rules.append(Rule(match="GET", times=1, bytes_per_second=1000, piece=100))
        assert await encrypted.get("a", 0, len(DATA)) == DATA
        assert encrypted.counters.retries >= 1
        await encrypted.aclose()


@pytest.mark.parametrize(("seconds", "which"), [(-3600, "ahead of"), (3600, "behind")])
async def test_a_clock_that_is_off_is_told_by_how_much(
    seconds: int, which: str, store: ObjectStore, proxy: FaultProxy
) -> None:
    begun = int(time.time())
    date = formatdate(begun + seconds, usegmt=True)
    rule = Rule(status=403, code="RequestTimeTooSkewed", headers={"Date": date})
    proxy.rules.append(rule)

    with pytest.raises(WrongClock, match=rf"clock is \d+ s {which} the store's: set") as caught:
        await store.put("a", b"")

    told = re.search(r"clock is (\d+) s", str(caught.value))
    assert told is not None
    ahead = int(told[1]) if seconds < 0 else -int(told[1])
    assert -seconds - 1 <= ahead <= -seconds + time.time() - begun + 1


@pytest.mark.parametrize("fault", [{"upload_resets_after": 300_000}, {"upload_flips_at": 300_000}])
async def test_a_body_that_is_cut_or_damaged_on_its_way_is_sent_again(
    fault: dict[str, int], store: ObjectStore, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(match="^PUT", times=3, **fault))  # type: ignore[arg-type]

    info = await store.patient(60).put("body", DATA)
    upload = await store.begin_upload("parts")
    proxy.rules.append(Rule(match="^PUT", times=3, **fault))  # type: ignore[arg-type]
    part = await store.patient(60).put_part("parts", upload, 1, DATA)
    await store.commit_upload("parts", upload, [(1, part)])

    assert await store.get("body", 0, info.size) == DATA
    assert await store.get("parts", 0, len(DATA)) == DATA
    assert store.counters.retries >= 6


async def test_a_copy_in_parts_that_is_refused_leaves_no_upload(
    store: ObjectStore, proxy: FaultProxy, tmp_path: Path
) -> None:
    limits = replace(store.abilities.limits, copy_max=5 * MIB)
    store.abilities = replace(store.abilities, limits=limits)
    info, journal = await store.put("big", 11 * DATA), Journal(tmp_path)
    proxy.rules += [
        Rule(match="PUT /faults/copy.*partNumber=3", status=403, code="AccessDenied"),
        Rule(match="DELETE /faults/copy.*uploadId", status=503, times=1),
    ]

    async with trio.open_nursery() as nursery:
        copies = Copies(store, Uploads(store, journal, nursery), PartPlan(limits, 5 * MIB))
        with pytest.raises(Denied):
            await copies.copy(info, None, "copy")

    assert list(await store.uploads()) == []
    assert not journal.state.uploads
    journal.close()


def test_a_copied_part_that_is_the_whole_of_an_object_tells_its_version_itself(
    store: ObjectStore, provider: Provider, proxy: FaultProxy
) -> None:
    whole, upload = provider.head("a"), provider.begin_upload("b")
    proxy.requests.clear()

    provider.copy_part("b", upload, 1, "a", 0, whole.size, whole.etag)
    assert not [one for one in proxy.requests if one.startswith("HEAD")]

    provider.copy_part("b", upload, 2, "a", 0, whole.size - 1, whole.etag)
    assert [one.split()[0] for one in proxy.requests[-2:]] == ["PUT", "HEAD"]
    provider.abort_upload("b", upload)

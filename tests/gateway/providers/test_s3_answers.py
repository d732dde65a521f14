"""What is made of answers that no store should give, or that a store did not give at all."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.faultproxy import FaultProxy, Rule, certificate_for, fault_proxy

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import Denied, NotFound, Refused, Replaced, StoreError, Unreachable
from backgate.gateway.provider import Provider
from backgate.gateway.providers import open_provider
from backgate.gateway.providers.s3_read import info_of

NOBODY = "http://127.0.0.1:9"  # what is behind the proxy: every answer is a rule's
OURS = {"x-amz-request-id": "17"}
TRAEFIK = b"404 page not found\n"
NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code></Error>"
NO_SUCH_BUCKET = b"<Error><Code>NoSuchBucket</Code></Error>"
LISTING = """<ListBucketResult><Contents><Key>a</Key><Size>{size}</Size>
<LastModified>{date}</LastModified></Contents></ListBucketResult>"""


@pytest.fixture(scope="module")
def running_proxy() -> Iterator[FaultProxy]:
    with fault_proxy(NOBODY) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: FaultProxy) -> FaultProxy:
    running_proxy.rules.clear()
    running_proxy.requests.clear()
    return running_proxy


@pytest.fixture
def provider(proxy: FaultProxy) -> Iterator[Provider]:
    provider = opened(proxy.url)
    yield provider
    provider.close()


def opened(url: str) -> Provider:
    config = RepositoryConfig(
        name="test", url="s3://bucket", provider="seaweedfs", endpoint_url=url
    )
    return open_provider(config, Credentials("key", "secret"))[0]


@pytest.mark.parametrize("body", [TRAEFIK, b"<html><body>404 Not Found</body></html>", b""])
def test_a_404_of_a_proxy_is_a_fault_and_no_answer(
    body: bytes, provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(status=404, body=body))

    for call in (
        lambda: provider.head("a"),
        lambda: provider.get("a", 0, 1),
        lambda: provider.copy("a", "b"),
        lambda: provider.commit_upload("a", "upload", [(1, "etag")]),
        provider.page,
    ):
        with pytest.raises(Unreachable, match="404"):
            call()
    assert isinstance(provider.delete(["a"])["a"], Unreachable)


def test_a_404_in_the_stores_words_is_an_answer(provider: Provider, proxy: FaultProxy) -> None:
    proxy.rules.append(Rule(status=404, body=NO_SUCH_KEY))

    for call in (lambda: provider.head("a"), lambda: provider.get("a", 0, 1)):
        with pytest.raises(NotFound, match="no such object"):
            call()
    assert provider.delete(["a"]) == {}


def test_a_head_that_a_store_answered_itself_is_not_asked_twice(
    provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(status=404, headers=OURS))

    with pytest.raises(NotFound):
        provider.head("a")

    assert proxy.requests == ["HEAD /bucket/a"]


def test_nothing_is_deleted_in_a_bucket_that_is_not_there(
    provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(status=404, body=NO_SUCH_BUCKET))

    for keys in (["a"], ["a", "b"]):
        with pytest.raises(NotFound, match="no such bucket"):
            provider.delete(keys)


def test_a_passing_fault_does_not_end_deleting_in_batches(
    provider: Provider, proxy: FaultProxy
) -> None:
    slow = b"<Error><Code>RequestTimeout</Code></Error>"
    proxy.rules.append(Rule(match="delete", times=1, status=400, body=slow))
    proxy.rules.append(Rule(match="delete", status=200, body=b"<DeleteResult></DeleteResult>"))

    with pytest.raises(Unreachable):
        provider.delete(["a", "b"])
    assert provider.delete(["a", "b"]) == {}

    assert [line.split()[0] for line in proxy.requests] == ["POST", "POST"]


def test_a_store_that_is_gone_is_not_asked_for_each_key(
    provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(match="POST", status=501))
    proxy.rules.append(Rule(match="DELETE .*/b$", is_refused=True))
    proxy.rules.append(Rule(match="DELETE", status=204))

    failed = provider.delete(["a", "b", "c", "d"])

    assert list(failed) == ["b", "c", "d"]
    assert all(isinstance(error, Unreachable) for error in failed.values())
    assert proxy.requests[-1].endswith("/b")


@pytest.mark.parametrize(
    "entry", ["<Code>InternalError</Code>", "<Key>z</Key><Code>AccessDenied</Code>"]
)
def test_a_failed_delete_of_a_key_that_nobody_named_is_not_success(
    entry: str, provider: Provider, proxy: FaultProxy
) -> None:
    body = f"<DeleteResult><Error>{entry}</Error></DeleteResult>".encode()
    proxy.rules.append(Rule(match="delete", status=200, body=body))

    with pytest.raises(StoreError, match="nobody named"):
        provider.delete(["a", "b"])


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "-1"}, {"Content-Length": "9" * 40}])
def test_an_object_without_a_length_is_not_an_empty_one(headers: dict[str, str]) -> None:
    with pytest.raises(Unreachable, match="s3://b: head 'a': the answer has no length"):
        info_of("a", headers, "s3://b: head 'a'")


@pytest.mark.parametrize("size", ["-1", "1e3", "1_000", str(2**63), "9" * 40, ""])
def test_an_object_of_an_impossible_size_is_no_listing(
    size: str, provider: Provider, proxy: FaultProxy
) -> None:
    body = LISTING.format(size=size, date="2026-01-01T00:00:00Z")
    proxy.rules.append(Rule(status=200, body=body.encode()))

    with pytest.raises(Unreachable, match="page"):
        provider.page()


@pytest.mark.parametrize("date", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_time_that_no_database_holds_counts_as_1970(
    date: str, provider: Provider, proxy: FaultProxy
) -> None:
    body = LISTING.format(size=1, date=date)
    proxy.rules.append(Rule(match="GET", status=200, body=body.encode()))
    headers = {"Last-Modified": "Fri, 31 Dec 9999 23:59:59 GMT"}
    proxy.rules.append(Rule(match="HEAD", status=200, headers=headers, body=b"1"))

    assert provider.page().objects[0].mtime_ns == 0
    assert provider.head("a").mtime_ns == 0


def test_a_range_that_nobody_asked_for_is_an_error_of_the_store(
    provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(status=416))

    for call in (lambda: provider.head("a"), provider.page):
        with pytest.raises(StoreError):
            call()


def test_an_answer_without_an_etag_is_an_error_of_the_store(
    provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(status=200))

    for call in (lambda: provider.put("a", b"1"), lambda: provider.put_part("a", "u", 1, b"1")):
        with pytest.raises(StoreError, match="no etag"):
            call()


def test_certificates_of_the_environment_are_trusted_by_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, bundle = certificate_for(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    with fault_proxy(NOBODY, context) as proxy:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        headers = {"ETag": '"1"', "Last-Modified": date, **OURS}
        proxy.rules.append(Rule(status=200, headers=headers))
        provider = opened(proxy.url)

        assert provider.put("a", b"").etag == provider.head("a").etag == "1"
        provider.close()


def test_requests_one_after_another_need_one_connection(
    provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(match="DELETE", status=204))
    proxy.rules.append(Rule(status=200, headers={"ETag": '"1"', **OURS}))
    provider.head("a")
    before = proxy.connections

    for _ in range(5):
        provider.check()
        provider.head("a")
        provider.put("a", b"1")
        provider.put_part("a", "u", 1, b"1")
        provider.delete(["a"])

    assert proxy.connections == before


def weak(etag: str, body: bytes = b"") -> Rule:
    """A proxy's answer: it has made the etag weak."""
    headers = {"ETag": f'W/"{etag}"', "Content-Range": "bytes 0-2/3", **OURS}
    return Rule(match="GET", status=206, headers=headers, body=body)


def test_a_version_with_a_weak_etag_is_read_without_a_condition(
    provider: Provider, proxy: FaultProxy
) -> None:
    head = {"ETag": 'W/"1"', "Last-Modified": "Sun, 22 Nov 2026 14:05:28 GMT", **OURS}
    proxy.rules.append(Rule(header="if-match", status=412))
    proxy.rules.append(Rule(match="HEAD", status=200, headers=head))
    proxy.rules.append(weak("1", b"abc"))
    etag = provider.head("a").etag

    assert etag == "1"
    assert provider.get("a", 0, 3, etag) == b"abc"
    asked = len(proxy.requests)
    assert provider.get("a", 0, 3, etag) == b"abc"
    assert len(proxy.requests) == asked + 1
    with pytest.raises(Replaced):
        provider.get("a", 0, 3, "2")


def test_a_condition_that_does_not_hold_is_another_version_though_the_etag_is_weak(
    provider: Provider, proxy: FaultProxy
) -> None:
    head = {"ETag": 'W/"2"', "Last-Modified": "Sun, 22 Nov 2026 14:05:28 GMT", **OURS}
    proxy.rules.append(Rule(header="if-match", status=412))
    proxy.rules.append(Rule(match="HEAD", status=200, headers=head))

    with pytest.raises(Replaced):
        provider.get("a", 0, 3, "1")


def test_a_bucket_that_lets_nobody_ask_for_it_says_what_is_missing(
    provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(match="HEAD", status=403, times=2))
    proxy.rules.append(Rule(status=403, code="AccessDenied", times=1))
    proxy.rules.append(Rule(status=403, code="InvalidAccessKeyId"))

    with pytest.raises(Denied, match="allow s3:ListBucket"):
        provider.check()
    with pytest.raises(Refused, match="does not know the access key"):
        provider.check()


def test_a_bucket_that_can_be_listed_is_there_though_it_refuses_a_head(
    provider: Provider, proxy: FaultProxy
) -> None:
    date = "2026-11-22T14:05:28Z"
    proxy.rules.append(Rule(match="HEAD", status=403))
    proxy.rules.append(Rule(status=200, body=LISTING.format(size=1, date=date).encode()))

    provider.check()

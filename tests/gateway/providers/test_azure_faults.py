"""Azure on a bad network, and services that differ: what is waited out, what is told how."""

from collections.abc import Iterator

import pytest
from servers.azurite import ACCOUNT, Azurite
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from support.damaging import right_bytes_arrive
from trio.testing import MockClock

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AzureCredentials
from backgate.gateway.errors import (
    AlreadyThere,
    NotAsSent,
    NotFound,
    Refused,
    Replaced,
    StoreError,
    Unreachable,
    Unsupported,
)
from backgate.gateway.provider import Provider
from backgate.gateway.providers import open_provider
from backgate.gateway.testing.provider_contract import fill, keys_of

pytestmark = [pytest.mark.live, pytest.mark.slow]

DATA = bytes(range(256)) * 4096  # a mebibyte


@pytest.fixture(scope="module")
def running_proxy(azurite_server: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite_server.endpoint_url) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: FaultProxy) -> FaultProxy:
    for past in (running_proxy.rules, running_proxy.requests, running_proxy.headers):
        past.clear()
    return running_proxy


@pytest.fixture
def provider(proxy: FaultProxy, azurite_server: Azurite) -> Iterator[Provider]:
    azurite_server.empty(azurite_server.container("faults"))
    config = RepositoryConfig(name="test", url="az://faults", endpoint_url=f"{proxy.url}/{ACCOUNT}")
    provider = open_provider(config, AzureCredentials(key=azurite_server.key))[0]
    provider.put("a", DATA)
    yield provider
    provider.close()


def answering(status: int, code: str, **headers: str) -> Rule:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Rule(status=status, headers=named | ({"x-ms-error-code": code} if code else {}))


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_busy_store_is_waited_for_as_long_as_it_says(
    status: int, provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(answering(status, "ServerBusy", Retry_After="7"))

    for call in (
        lambda: provider.head("a"),
        lambda: provider.get("a", 0, 1),
        lambda: provider.put("b", b"x"),
        provider.page,
        lambda: provider.copy("a", "b"),
        lambda: provider.delete(["a", "b"]),
        lambda: provider.begin_upload("b"),
    ):
        with pytest.raises(Unreachable, match="ServerBusy") as caught:
            call()
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (404, "", Unreachable, "404"),  # a proxy's word
        (404, "BlobNotFound", NotFound, "no such blob"),
        (412, "ConditionNotMet", Replaced, "another version"),
        (412, "LeaseIdMissing", Refused, "LeaseIdMissing"),
        (403, "AuthenticationFailed", Refused, "wrong key or signature"),
        (403, "AuthorizationPermissionMismatch", Refused, "access denied"),
        (403, "KeyBasedAuthenticationNotPermitted", Refused, "allows no account keys"),
        (409, "BlobArchived", StoreError, "rehydrate"),
        (501, "NotImplemented", Unsupported, "NotImplemented"),
        (418, "Teapot", StoreError, "Teapot"),
    ],
)
def test_each_answer_has_its_meaning(
    status: int,
    code: str,
    error: type[StoreError],
    words: str,
    provider: Provider,
    proxy: FaultProxy,
) -> None:
    proxy.rules.append(Rule(match="GET", status=status, headers={"x-ms-error-code": code}))

    with pytest.raises(error, match=words):
        provider.get("a", 0, 9, provider.head("a").etag)


def test_a_body_that_breaks_off_is_a_fault(provider: Provider, proxy: FaultProxy) -> None:
    for rule in (Rule(match="GET", truncate_after=1000), Rule(match="GET", reset_after=1000)):
        proxy.rules[:] = [rule]
        with pytest.raises(Unreachable):
            provider.get("a", 0, len(DATA))


def test_a_listing_that_breaks_off_is_a_fault(provider: Provider, proxy: FaultProxy) -> None:
    proxy.rules.append(Rule(match="comp=list", status=200, body=b"<EnumerationResults><Blobs>"))

    with pytest.raises(Unreachable):
        provider.page()


def test_a_lost_answer_of_a_conditional_put_is_found_in_the_next(
    provider: Provider, proxy: FaultProxy
) -> None:
    proxy.rules.append(Rule(match="PUT", is_lost=True, times=1))

    with pytest.raises(Unreachable):
        provider.put("new", b"x", if_absent=True)
    with pytest.raises(AlreadyThere):
        provider.put("new", b"x", if_absent=True)


def test_keys_are_deleted_one_by_one_where_there_are_no_batches(
    provider: Provider, proxy: FaultProxy
) -> None:
    fill(provider, ["b", "c"])
    proxy.rules.append(Rule(match="comp=batch", status=400))

    assert provider.delete(["a", "b", "absent"]) == {}
    assert provider.delete(["c", "absent"]) == {}

    assert keys_of(provider) == []
    assert sum("comp=batch" in line for line in proxy.requests) == 1


def test_a_batch_that_is_not_answered_whole_is_a_fault(
    provider: Provider, proxy: FaultProxy
) -> None:
    kind = {"Content-Type": "multipart/mixed; boundary=x"}
    for body in (b"", b"--x\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n\r\n--x--", b"nonsense"):
        proxy.rules[:] = [Rule(match="comp=batch", status=202, headers=kind, body=body)]
        with pytest.raises(Unreachable, match="batch"):
            provider.delete(["a", "b"])


def test_a_listing_starts_at_a_key_where_the_service_can(
    provider: Provider, proxy: FaultProxy
) -> None:
    fill(provider, ["b", "c"])

    assert keys_of(provider, after="a") == ["b", "c"]
    assert "startFrom=a" in proxy.requests[-1]

    unknown = {"x-ms-error-code": "InvalidHeaderValue"}
    proxy.rules.append(Rule(match="startFrom", status=400, headers=unknown))
    assert keys_of(provider, after="a", limit=1) == ["b", "c"]
    assert keys_of(provider, after="b") == ["c"]
    assert sum("startFrom" in line for line in proxy.requests) == 2


def test_an_account_whose_directories_are_blobs_is_refused(
    provider: Provider, proxy: FaultProxy
) -> None:
    told = {"x-ms-is-hns-enabled": "true"}
    proxy.rules.append(Rule(match="comp=properties", status=200, headers=told))

    with pytest.raises(Unsupported, match="hierarchical namespace"):
        provider.check()


def test_a_copy_that_goes_on_is_waited_for(provider: Provider, proxy: FaultProxy) -> None:
    going_on = {"x-ms-copy-status": "pending"}
    proxy.rules.append(Rule(match="PUT .*/b", status=202, headers=going_on, times=1))
    proxy.rules.append(Rule(match="HEAD .*/b", status=200, headers=going_on, times=2))
    failed = {"x-ms-copy-status": "failed"}
    proxy.rules.append(Rule(match="HEAD .*/b", status=200, headers=failed))

    with pytest.raises(StoreError, match="it has failed"):
        provider.copy("a", "b")

    assert sum(line.startswith("HEAD") and "/b" in line for line in proxy.requests) == 3


def test_a_connection_that_breaks_shows_no_signature(provider: Provider, proxy: FaultProxy) -> None:
    proxy.rules.append(Rule(match="GET", is_refused=True))

    with pytest.raises(Unreachable) as caught:
        provider.get("a", 0, 9)

    assert "sig=" not in str(caught.value)


def test_nothing_behind_a_key_is_left_out_whatever_order_the_service_has(
    provider: Provider,
) -> None:
    fill(provider, ["b", "😀", "～"])  # in the order of UTF-16; in UTF-8 the last two are swapped

    assert keys_of(provider) == ["a", "b", "😀", "～"]
    assert keys_of(provider, after="b") == ["😀", "～"]
    assert keys_of(provider, after="😀") == ["～"]
    assert "😀" in keys_of(provider, after="～")  # rather once too often than never


async def test_a_body_that_was_damaged_on_its_way_is_sent_again(
    provider: Provider, proxy: FaultProxy, autojump_clock: MockClock
) -> None:
    await right_bytes_arrive(provider, proxy, "^PUT")


def test_a_wrong_checksum_is_refused(provider: Provider) -> None:
    with pytest.raises(NotAsSent):
        provider.put_damaged("b", "md5")

    assert keys_of(provider) == ["a"]

"""Google Cloud Storage against fake-gcs-server: the contract, and what goes wrong."""

import json
import sys
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.gcs import FakeGcs
from support.damaging import right_bytes_arrive
from trio.testing import MockClock

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials, GoogleCredentials
from backgate.gateway.errors import (
    AlreadyThere,
    ConfigError,
    InvalidKey,
    NotFound,
    Refused,
    Replaced,
    StoreError,
    Unreachable,
)
from backgate.gateway.provider import Provider
from backgate.gateway.providers import open_provider
from backgate.gateway.providers.pending_uploads import PLACE
from backgate.gateway.testing.provider_contract import ProviderContract, keys_of

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

    def test_a_body_that_is_not_its_checksum_is_refused(self, provider: Provider) -> None:
        """This emulator looks at none."""
        provider.put_damaged("a", "crc32c")

    def test_only_the_version_that_is_meant_is_deleted(self, provider: Provider) -> None:
        """This emulator looks at no condition when it deletes."""
        provider.delete_version("a", provider.put("a", b"").etag)
        provider.delete_version("a", "1")

        assert keys_of(provider) == []


@pytest.fixture(scope="module")
def server(gcs_server: FakeGcs) -> FakeGcs:
    gcs_server.bucket("other")
    return gcs_server


def test_a_missing_bucket_is_said(server: FakeGcs) -> None:
    provider = opened(server, "no-such-bucket")

    for call in (provider.check, provider.page):
        with pytest.raises(NotFound, match="no such bucket") as caught:
            call()
        assert caught.value.key is None
    provider.close()


def test_more_parts_than_one_compose_takes_are_composed_in_turns(server: FakeGcs) -> None:
    provider = opened(server, "other")
    upload = provider.begin_upload("many", {"mode": "1"})
    etags = [
        (number, provider.put_part("many", upload, number, b"%04d" % number))
        for number in range(1, 70)
    ]

    info = provider.commit_upload("many", upload, etags)

    assert provider.get("many", 0, 999) == b"".join(b"%04d" % number for number in range(1, 70))
    assert (info.size, info.metadata) == (4 * 69, {"mode": "1"})
    assert keys_of(provider) == ["many"]
    assert provider.page(PLACE).objects == []
    assert list(provider.uploads()) == []
    provider.delete(["many"])
    provider.close()


def test_another_process_ends_an_upload(server: FakeGcs) -> None:
    first, second = opened(server, "other"), opened(server, "other")
    upload = first.begin_upload("shared")
    first.put_part("shared", upload, 1, b"one")

    assert [one.upload for one in second.uploads("sh")] == [upload]
    second.put_part("shared", upload, 2, b"two")
    second.abort_upload("shared", upload)

    assert list(first.uploads()) == []
    with pytest.raises(NotFound):
        first.commit_upload("shared", upload, [(1, "1")])
    first.close()
    second.close()


def test_a_delete_names_the_version_and_is_told_of_another(server: FakeGcs) -> None:
    with fault_proxy(server.endpoint_url) as proxy:
        provider = opened(server, "other", endpoint_url=proxy.url)
        etag = provider.put("d/a", b"").etag
        proxy.rules = [Rule(match="DELETE .*/d%2Fa.ifGenerationMatch=1$", status=412)]

        with pytest.raises(Replaced):
            provider.delete_version("d/a", "1")
        assert keys_of(provider) == ["d/a"]
        provider.delete_version("d/a", etag)
        assert proxy.requests[-1].endswith(f"?ifGenerationMatch={etag}")
        provider.delete_version("d/a", "1")
        assert keys_of(provider) == []
        provider.close()


def test_a_name_that_is_kept_for_uploads_is_refused(server: FakeGcs) -> None:
    provider = opened(server, "other")

    with pytest.raises(InvalidKey, match=r"keeps '\.backgate-uploads' for itself"):
        provider.put(f"{PLACE}/x", b"")
    provider.close()


@pytest.fixture(scope="module")
def key_file() -> dict[str, str]:
    """What Google gives for a service account, with a key that nobody knows."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": text.decode(),
        "client_email": "backgate@acme.iam.gserviceaccount.com",
    }


@pytest.fixture(scope="module")
def running_proxy(gcs_server: FakeGcs) -> Iterator[FaultProxy]:
    with fault_proxy(gcs_server.endpoint_url) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: FaultProxy) -> FaultProxy:
    """In front of the emulator; and what is sent to `/token` is answered by rules alone."""
    for past in (running_proxy.rules, running_proxy.requests, running_proxy.headers):
        past.clear()
    return running_proxy


@pytest.fixture
def account(proxy: FaultProxy, key_file: dict[str, str]) -> GoogleCredentials:
    return GoogleCredentials({**key_file, "token_uri": f"{proxy.url}/token"})


def granting(token: str, seconds: int = 3600) -> Rule:
    body = json.dumps({"access_token": token, "expires_in": seconds, "token_type": "Bearer"})
    kind = {"Content-Type": "application/json"}
    return Rule(match="POST /token", status=200, headers=kind, body=body.encode())


def test_a_service_account_gets_one_token_for_many_requests(
    proxy: FaultProxy, account: GoogleCredentials, server: FakeGcs
) -> None:
    proxy.rules.append(granting("first"))
    provider = opened(server, "other", account, proxy.url)

    provider.put("a", b"data")
    assert provider.get("a", 0, 9) == b"data"
    assert provider.delete(["a", "b"]) == {}

    carried = [headers.get("authorization") for headers in proxy.headers]
    assert carried == [None, *["Bearer first"] * 3]
    provider.close()


def test_a_token_that_is_not_taken_is_fetched_anew(
    proxy: FaultProxy, account: GoogleCredentials, server: FakeGcs
) -> None:
    proxy.rules += [granting("first"), Rule(match="GET /storage", status=401, times=1)]
    provider = opened(server, "other", account, proxy.url)

    with pytest.raises(Refused, match="access denied"):
        provider.page()
    proxy.rules[0] = granting("second")
    provider.page()

    assert proxy.headers[-1]["authorization"] == "Bearer second"
    provider.close()


def test_a_token_that_is_not_taken_for_a_batch_is_fetched_anew(
    proxy: FaultProxy, account: GoogleCredentials, server: FakeGcs
) -> None:
    proxy.rules += [granting("first"), Rule(match="POST /batch", status=401, times=1)]
    provider = opened(server, "other", account, proxy.url)

    with pytest.raises(Refused, match="access denied"):
        provider.delete(["a", "b"])
    proxy.rules[0] = granting("second")
    provider.delete(["a", "b"])

    assert proxy.headers[-1]["authorization"] == "Bearer second"
    provider.close()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b'{"error": "invalid_grant", "error_description": "who?"}', Refused),
        (400, b'{"error": "temporarily_unavailable"}', Unreachable),
    ],
)
def test_a_token_that_is_not_given_says_why(
    status: int,
    body: bytes,
    error: type[StoreError],
    proxy: FaultProxy,
    account: GoogleCredentials,
    server: FakeGcs,
) -> None:
    kind = {"Content-Type": "application/json"}
    proxy.rules.append(Rule(match="POST /token", status=status, headers=kind, body=body))
    provider = opened(server, "other", account, proxy.url)

    with pytest.raises(error, match="no token") as caught:
        provider.head("a")

    assert "PRIVATE" not in str(caught.value)
    provider.close()


def test_a_key_file_that_is_not_whole_is_said_and_not_shown(
    key_file: dict[str, str], server: FakeGcs
) -> None:
    for broken in (
        {**key_file, "private_key": "s3cr3t", "token_uri": "http://127.0.0.1:9/"},
        {"type": "service_account", "private_key": "s3cr3t"},
        {"type": "authorized_user", "client_secret": "s3cr3t"},
    ):
        with pytest.raises(ConfigError, match="not a whole") as caught:
            opened(server, "other", GoogleCredentials(broken))
        assert "s3cr3t" not in str(caught.value)


def test_without_googles_library_a_key_file_asks_for_the_extra(
    key_file: dict[str, str], server: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.oauth2.service_account", None)

    with pytest.raises(ConfigError, match=r"pip install 'backgate\[gcs\]'"):
        opened(server, "other", GoogleCredentials(key_file))
    opened(server, "other").close()


def said(status: int, reason: str, message: str = "words") -> Rule:
    error = {"code": status, "message": message, "errors": [{"reason": reason}]}
    return Rule(
        match="/storage/v1/b",
        status=status,
        headers={"Retry-After": "7"},
        body=json.dumps({"error": error}).encode(),
    )


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (said(429, "rateLimitExceeded"), Unreachable, "words"),
        (said(403, "userRateLimitExceeded"), Unreachable, "words"),
        (said(503, "backendError"), Unreachable, "words"),
        (said(404, "notFound"), NotFound, "no such object"),
        (Rule(match="/storage/v1/b", status=404), Unreachable, "404"),  # a proxy's word
        (said(403, "forbidden"), Refused, "no credentials: set GOOGLE_APPLICATION_CREDENTIALS"),
        (said(412, "conditionNotMet"), AlreadyThere, "already there"),
        (said(400, "invalid"), StoreError, "words"),
    ],
)
def test_each_answer_has_its_meaning(
    rule: Rule, error: type[StoreError], words: str, proxy: FaultProxy, server: FakeGcs
) -> None:
    provider = opened(server, "other", None, proxy.url)
    proxy.rules.append(rule)

    for call in (lambda: provider.head("a"), lambda: provider.copy("a", "b")):
        with pytest.raises(error, match=words) as caught:
            call()
        if isinstance(caught.value, Unreachable) and rule.headers:
            assert caught.value.retry_after == 7
    provider.close()


def test_a_body_that_breaks_off_is_a_fault(proxy: FaultProxy, server: FakeGcs) -> None:
    provider = opened(server, "other", None, proxy.url)
    provider.put("a", b"x" * 100_000)

    for rule in (Rule(match="alt=media", truncate_after=9), Rule(match="alt=media", reset_after=9)):
        proxy.rules[:] = [rule]
        with pytest.raises(Unreachable):
            provider.get("a", 0, 100_000)
    proxy.rules[:] = [Rule(match="GET", status=200, body=b'{"kind": "storage#obj')]
    with pytest.raises(Unreachable):
        provider.page()
    provider.close()


def test_keys_are_deleted_one_by_one_where_there_are_no_batches(
    proxy: FaultProxy, server: FakeGcs
) -> None:
    provider = opened(server, "other", None, proxy.url)
    provider.put("a", b"")
    provider.put("b", b"")
    proxy.rules.append(Rule(match="POST /batch", status=404))

    assert provider.delete(["a", "b", "absent"]) == {}

    assert keys_of(provider) == []
    provider.close()


async def test_a_body_that_was_damaged_on_its_way_is_sent_again(
    proxy: FaultProxy, server: FakeGcs, autojump_clock: MockClock
) -> None:
    """Also where the store looks at no checksum, as this emulator does: its answer tells."""
    provider = opened(server, "other", endpoint_url=proxy.url)
    provider.put_damaged("taken", "crc32c")

    await right_bytes_arrive(provider, proxy, "POST /upload")

    provider.close()

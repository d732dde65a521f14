"""The emulation itself: rules meet the requests they name, listings are weak as they are told."""

import itertools
import time
from pathlib import Path
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree

import pytest
from servers.faultproxy import certificate_for, fault_proxy
from servers.faults.listings import Item, Listings
from servers.faults.rule import Asked, Rule
from servers.faults.rulesets import NAMES, rule_set, weaknesses
from servers.seaweedfs import SeaweedFS

from backgate.gateway.profiles import profiles

KEYS = ["a", "a-", "a.b", "a/x", "a/y", "a0", "b", "c d+e&f", "é"]


def asked(line: str = "GET /bucket?list-type=2", **headers: str) -> Asked:
    method, _, target = line.partition(" ")
    return Asked(method, target, headers)


def listed(**query: str) -> Asked:
    parts = {"list-type": "2", "encoding-type": "url"} | {
        name.replace("_", "-"): value for name, value in query.items()
    }
    return asked(f"GET /bucket?{urlencode(parts, quote_via=quote)}")


def held(*keys: str) -> list[Item]:
    return [Item(key, "1", '"etag"', "2026-11-22T00:00:00Z") for key in keys]


def names(listings: Listings, items: list[Item], **query: str) -> list[list[str]]:
    """Keys and common prefixes of each page, up to the last."""
    pages: list[list[str]] = []
    token: str | None = None
    while not pages or token:
        more = {"continuation_token": token} if token else {}
        root = ElementTree.fromstring(listings.answer(listed(**query, **more), items))
        texts = [one.text or "" for one in root.iter() if one.tag in ("Key", "Prefix")]
        pages.append([unquote_plus(text) for text in texts])
        token = root.findtext("NextContinuationToken")
        query.pop("start_after", None)
        assert len(pages) < 100
    return pages


def flat(pages: list[list[str]]) -> list[str]:
    return list(itertools.chain.from_iterable(pages))


@pytest.mark.parametrize(
    ("rule", "request_", "applies"),
    [
        (Rule(match="^PUT"), asked("PUT /b/k"), True),
        (Rule(match="^PUT"), asked("GET /b/k"), False),
        (Rule(header="if-"), asked("PUT /b/k", **{"if-none-match": "*"}), True),
        (Rule(header="if-"), asked("PUT /b/k"), False),
        (Rule(lacks="content-md5"), asked("POST /b?delete"), True),
        (Rule(lacks="content-md5"), asked("POST /b?delete", **{"content-md5": "x"}), False),
        (Rule(keys_above=100), asked("GET /b?list-type=2&max-keys=101"), True),
        (Rule(keys_above=100), asked("GET /b?list-type=2&max-keys=100"), False),
        (Rule(keys_above=100), asked("GET /b?prefix=x"), True),
        (Rule(keys_above=100), asked("GET /b?uploads"), False),
        (Rule(keys_above=100), asked("GET /b/key"), False),
    ],
)
def test_a_rule_applies_to_what_it_describes(rule: Rule, request_: Asked, applies: bool) -> None:
    assert rule.applies(request_) == applies


def test_a_rule_counts_what_it_describes() -> None:
    rule = Rule(match="^PUT", skip=1, every=3, times=2)

    met = [rule.applies(asked("PUT /b/k")) for _ in range(12)]
    rule.applies(asked("GET /b/k"))

    assert [number for number, one in enumerate(met) if one] == [3, 6]


def test_a_rate_lets_pass_what_is_below_it() -> None:
    rule = Rule(per_second=10)

    refused = [rule.applies(asked()) for _ in range(30)]

    assert refused[:10] == [False] * 10
    assert sum(refused) >= 19


@pytest.mark.parametrize("limit", ["1", "2", "3", "1000"])
@pytest.mark.parametrize("order", ["bytes", "directories", "scattered"])
def test_a_listing_gives_every_name_once_in_any_order(order: str, limit: str) -> None:
    listings = Listings(order=order)  # type: ignore[arg-type]

    pages = names(listings, held(*KEYS), max_keys=limit)
    by_directory = flat(names(listings, held(*KEYS), max_keys=limit, delimiter="/"))

    assert sorted(flat(pages)) == sorted(KEYS)
    assert (flat(pages) == sorted(KEYS)) == (order == "bytes")
    assert all(len(page) <= int(limit) for page in pages)
    assert sorted(by_directory) == sorted({"a/", *(key for key in KEYS if "/" not in key)})


def test_a_listing_begins_behind_a_key_unless_it_takes_no_notice() -> None:
    assert flat(names(Listings(), held(*KEYS), start_after="a0")) == ["b", "c d+e&f", "é"]
    careless = Listings(ignores_start_after=True)
    assert flat(names(careless, held(*KEYS), start_after="a0")) == KEYS


def test_an_older_protocol_goes_on_by_marker() -> None:
    page = Listings().answer(asked("GET /b?max-keys=2&marker=a.b"), held(*KEYS))

    root = ElementTree.fromstring(page)
    assert [one.text for one in root.iter("Key")] == ["a/x", "a/y"]
    assert root.findtext("NextMarker") == "a/y"


def test_pages_may_be_small_or_empty_and_not_the_last() -> None:
    pages = names(Listings(page_max=4, empty_every=2), held(*KEYS), max_keys="1000")

    assert flat(pages) == KEYS
    assert [len(page) for page in pages] == [4, 0, 4, 0, 1]


def test_a_listing_takes_its_time_above_a_number_of_keys() -> None:
    scans, slow = Listings(scans_above=10), Listings(slow_above=10, seconds=3)

    assert scans.wait(listed(delimiter="/"), 11) == float("inf")
    assert scans.wait(listed(delimiter="/"), 10) == scans.wait(listed(), 11) == 0
    assert slow.wait(listed(), 11) == slow.wait(listed(delimiter="/"), 11) == 3


def test_a_listing_shows_an_older_state_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    listings = Listings(lag=5)

    assert flat(names(listings, held("a", "b"))) == ["a", "b"]
    assert flat(names(listings, held("b", "c"))) == ["a", "b"]
    now = 106.0
    assert flat(names(listings, held("b", "c"))) == ["b", "c"]


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_set_is_of_a_known_provider_and_says_its_sources(name: str) -> None:
    assert name in profiles()
    assert rule_set(name) != rule_set("aws") or name == "aws"
    for one in weaknesses(name):
        assert one.fact
        assert one.source
        assert one.rules or one.listings or one.drops or one.ignores_expect


@pytest.mark.live
@pytest.mark.slow
def test_a_real_server_is_hidden_behind_its_weaknesses(
    seaweedfs_server: SeaweedFS, tmp_path: Path
) -> None:
    """Through TLS, with a stranger's client: what the server does and what arrives of it."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    seaweedfs_server.bucket("hidden")
    seaweedfs_server.empty("hidden")
    context, bundle = certificate_for(tmp_path)
    with fault_proxy(seaweedfs_server.endpoint_url, context) as proxy:
        settings = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        client = boto3.client(
            "s3",
            endpoint_url=proxy.url,
            aws_access_key_id=seaweedfs_server.access_key,
            aws_secret_access_key=seaweedfs_server.secret_key,
            region_name="us-east-1",
            verify=bundle,
            config=settings,
        )

        def status(**put: str) -> int:
            try:
                answer = client.put_object(Bucket="hidden", Key="a", Body=b"x", **put)
            except ClientError as error:
                return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return int(answer["ResponseMetadata"]["HTTPStatusCode"])

        assert (status(), status(IfNoneMatch="*")) == (200, 412)
        proxy.drops = frozenset({"if-none-match"})
        assert status(IfNoneMatch="*") == 200
        proxy.rules.append(Rule(header="x-amz-trailer", status=411, code="MissingContentLength"))
        assert status() == 411
        proxy.rules[:] = [Rule(match="list-type", ends_after=60)]
        with pytest.raises(ClientError, match="500"):  # what botocore calls half a document
            client.list_objects_v2(Bucket="hidden")
        client.close()

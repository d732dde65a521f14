"""Requests to S3 are signed as botocore signs them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.providers.s3_client import Keys
from backgate.gateway.providers.s3_signing import PAYLOAD, Signer

NOON = datetime(2026, 11, 28, 12, 0, 1, tzinfo=UTC)
KEYS = Keys("AKID", "secret/+=", None)
BUCKETS = (
    "http://127.0.0.1:8333/bucket/",
    "http://127.0.0.1:80/bucket/",
    "https://s3.example.com:443/bucket/",
    "https://Bucket.S3.example.com/",
    "https://[2001:db8::1]:9000/bucket/",
)
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=9)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True)
QUERIES = st.one_of(
    st.just(""),
    st.lists(st.tuples(NAMES, TEXT), min_size=1, max_size=4).map(
        lambda pairs: "?" + "&".join(f"{name}={quote(text, safe='')}" for name, text in pairs)
    ),
)


class TheirSigner(S3SigV4Auth):
    def payload(self, request: AWSRequest) -> str:
        return "hash"


def as_botocore_does(
    method: str, url: str, headers: Mapping[str, str], keys: Keys, at: datetime
) -> dict[str, str]:
    request = AWSRequest(method, url, headers=headers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: at)
        TheirSigner(keys, "s3", "eu-south-2").add_auth(request)
    return dict(request.headers.items())


def as_we_do(
    signer: Signer, method: str, url: str, headers: Mapping[str, str], keys: Keys
) -> dict[str, str]:
    return signer.signed(method, url, {**headers, PAYLOAD: "hash"}, keys)


@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE"]),
    bucket=st.sampled_from(BUCKETS),
    key=TEXT,
    query=QUERIES,
    metadata=st.dictionaries(NAMES, st.lists(VISIBLE, min_size=1, max_size=3).map("  ".join)),
    token=st.one_of(st.none(), VISIBLE),
    seconds=st.integers(0, 2**31),
)
def test_any_request_is_signed_as_botocore_signs_it(
    method: str,
    bucket: str,
    key: str,
    query: str,
    metadata: dict[str, str],
    token: str | None,
    seconds: int,
) -> None:
    at = datetime.fromtimestamp(seconds, UTC)
    keys = Keys("AKID", "secret/+=", token)
    url = bucket + quote(key, safe="/-_.~") + query
    headers = {f"x-amz-meta-{name}": text for name, text in metadata.items()}
    headers |= {"Content-MD5": "AAAA", "If-None-Match": "*", "Range": "bytes=0-1"}

    ours = as_we_do(Signer(bucket, "eu-south-2", at.timestamp), method, url, headers, keys)

    assert ours == as_botocore_does(method, url, headers, keys, at)


def test_a_new_day_and_new_keys_sign_anew() -> None:
    url, clock = BUCKETS[0], [NOON]
    signer = Signer(url, "eu-south-2", lambda: clock[0].timestamp())

    for at in (NOON, NOON + timedelta(hours=13), NOON):
        for keys in (KEYS, Keys("AKID", "renewed", None), KEYS):
            clock[0] = at
            theirs = as_botocore_does("GET", url, {}, keys, at)

            assert as_we_do(signer, "GET", url, {}, keys) == theirs

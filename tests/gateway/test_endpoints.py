"""Tests of `gateway/endpoints.py`: what somebody writes, and where the requests go."""

import logging

import pytest

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.endpoints import Endpoint, endpoint_of
from backgate.gateway.errors import ConfigError
from backgate.gateway.profiles import profile, profiles


def found(url: str = "s3://acme", **settings: str) -> Endpoint:
    return endpoint_of(
        RepositoryConfig(name="x", url=url, origin="b.toml: [repository.x]", **settings)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("settings", "url", "region"),
    [
        ({}, "https://s3.us-east-1.amazonaws.com", "us-east-1"),
        ({"region": "eu-west-3"}, "https://s3.eu-west-3.amazonaws.com", "eu-west-3"),
        (
            {"provider": "wasabi", "region": "eu-central-1"},
            "https://s3.eu-central-1.wasabisys.com",
            "eu-central-1",
        ),
        (
            {"provider": "clever-cloud-cellar"},
            "https://cellar-c2.services.clever-cloud.com",
            "default",
        ),
        (
            {"provider": "backblaze-b2", "region": "us-west-004"},
            "https://s3.us-west-004.backblazeb2.com",
            "us-west-004",
        ),
        (
            {"provider": "ibm-cos", "region": "eu-de"},
            "https://s3.eu-de.cloud-object-storage.appdomain.cloud",
            "eu-de",
        ),
        (
            {"provider": "digitalocean-spaces", "region": "nyc3"},
            "https://nyc3.digitaloceanspaces.com",
            "nyc3",
        ),
        (
            {"provider": "cloudflare-r2", "account": "0a1b"},
            "https://0a1b.r2.cloudflarestorage.com",
            "auto",
        ),
        ({"provider": "google-storage-s3"}, "https://storage.googleapis.com", "auto"),
        ({"provider": "scaleway", "region": "fr-par"}, "https://s3.fr-par.scw.cloud", "fr-par"),
        ({"provider": "ovh", "region": "gra"}, "https://s3.gra.io.cloud.ovh.net", "gra"),
        ({"provider": "hetzner", "region": "fsn1"}, "https://fsn1.your-objectstorage.com", "fsn1"),
    ],
)
def test_a_provider_and_a_region_are_enough(
    settings: dict[str, str], url: str, region: str
) -> None:
    endpoint = found(**settings)

    assert (endpoint.url, endpoint.region) == (url, region)


@pytest.mark.parametrize("name", profiles())
def test_an_endpoint_of_ones_own_is_taken_for_every_s3_provider(name: str) -> None:
    if profile(name).scheme == "s3":
        endpoint = found(provider=name, endpoint_url="http://127.0.0.1:9000", region="somewhere")

        assert endpoint.url == "http://127.0.0.1:9000"
        assert endpoint.profile.title == profile(name).title


@pytest.mark.parametrize(
    ("url", "name", "region"),
    [
        ("https://s3.eu-central-2.wasabisys.com", "wasabi", "eu-central-2"),
        ("https://S3.us-west-004.BackblazeB2.com:443/", "backblaze-b2", "us-west-004"),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", "aws", "eu-west-1"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "aws", "cn-north-1"),
        ("https://0a1b.eu.r2.cloudflarestorage.com", "cloudflare-r2", "auto"),
        ("https://s3.private.us-south.cloud-object-storage.appdomain.cloud", "ibm-cos", "us-south"),
        ("https://storage.googleapis.com", "google-storage-s3", "auto"),
        ("https://s3.us-east-va.io.cloud.ovh.us", "ovh", "us-east-va"),
    ],
)
def test_an_address_tells_provider_and_region(url: str, name: str, region: str) -> None:
    endpoint = found(endpoint_url=url)

    assert (endpoint.profile, endpoint.region) == (profile(name), region)


def test_the_address_is_right_about_the_region() -> None:
    """`AWS_REGION` completes every URL."""
    endpoint = found(endpoint_url="https://nyc3.digitaloceanspaces.com", region="us-east-1")

    assert endpoint.region == "nyc3"


def test_of_an_unknown_address_little_is_expected_and_a_hint_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for url in ("https://s3.example.com", "https://amazonaws.com", "https://xs3.gra.scw.cloud"):
        caplog.clear()
        endpoint = found(endpoint_url=url)

        assert endpoint.profile == profile("generic")
        assert f"nothing is known of {url}" in caplog.text
        assert "backgate validate" in caplog.text


def test_who_writes_that_nothing_is_known_is_not_told_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    found(endpoint_url="https://s3.example.com", provider="generic")

    assert caplog.text == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"provider": "wasabi"},
            r"^b.toml: \[repository.x\]: region is missing: Wasabi has ap-northeast-1, .*west-1$",
        ),
        (
            {"provider": "wasabi", "region": "eu-centrl-1"},
            "region: 'eu-centrl-1' is none of Wasabi — did you mean 'eu-central-1'.*endpoint_url",
        ),
        ({"provider": "hetzner", "region": "x"}, "Hetzner Object Storage has fsn1, hel1, nbg1"),
        ({"region": "eu-wset-3"}, "did you mean 'eu-west-3'"),
        ({"provider": "backblaze-b2"}, "region is missing: write the region of your account at"),
        (
            {"provider": "cloudflare-r2"},
            r"account is missing: an address of Cloudflare R2 is https://{account}.r2.*endpoint_url",
        ),
        ({"provider": "wasabi", "region": "us-east-1", "account": "a"}, "account: .* have none"),
        ({"provider": "minio"}, "endpoint_url is missing: MinIO has no address of its own"),
        (
            {"endpoint_url": "http://s3.us-west-004.backblazeb2.com"},
            "endpoint_url: Backblaze B2 answers https only",
        ),
        ({"provider": "wasabbi"}, "provider: no profile 'wasabbi' — did you mean 'wasabi'"),
        ({"provider": "b2"}, "did you mean 'backblaze-b2'"),
        ({"provider": "r2"}, "did you mean 'cloudflare-r2'"),
        ({"provider": "nobody"}, "known are aws, "),
    ],
)
def test_what_is_wrong_is_said_with_the_choices(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        found(**settings)


@pytest.mark.parametrize(
    ("url", "settings", "address"),
    [
        ("az://backups", {"account": "acme"}, "https://acme.blob.core.windows.net"),
        ("az://backups", {"endpoint_url": "http://127.0.0.1:1/acme"}, "http://127.0.0.1:1/acme"),
        ("gs://backups", {}, "https://storage.googleapis.com"),
    ],
)
def test_a_url_of_its_own_protocol_needs_no_provider(
    url: str, settings: dict[str, str], address: str
) -> None:
    assert found(url, **settings).url == address


@pytest.mark.parametrize(
    ("url", "provider", "words"),
    [
        ("az://backups", "wasabi", "'wasabi' is for s3:// URLs, not az://"),
        ("gs://backups", "azure-blob", "'azure-blob' is for az:// URLs, not gs://"),
        ("s3://backups", "google-storage", "'google-storage' is for gs:// URLs, not s3://"),
    ],
)
def test_a_provider_of_another_protocol_is_refused(url: str, provider: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        found(url, provider=provider, account="acme")


def test_a_container_without_its_account_asks_for_it() -> None:
    with pytest.raises(ConfigError, match="account is missing"):
        found("az://backups")

"""What a URL and a profile open, and what is said when they cannot."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from backgate.gateway import plugins
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import ConfigError
from backgate.gateway.providers import open_provider, schemes
from backgate.gateway.providers.memory import Memory
from backgate.gateway.providers.s3 import S3
from backgate.gateway.providers.s3_client import Connection

KEYS = Credentials("key", "secret")


def config(url: str, **settings: str) -> RepositoryConfig:
    return RepositoryConfig(name="x", url=url, origin="b.toml: [repository.x]", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "name", "prefix"),
    [
        ("s3://acme", "s3://acme", ""),
        ("s3://acme/", "s3://acme", ""),
        ("s3://acme/xo", "s3://acme", "xo/"),
        ("s3://acme/xo/a b/", "s3://acme", "xo/a b/"),
        ("file:///srv/store", "file:///srv/store", ""),
        ("/srv/store", "file:///srv/store", ""),
        ("memory:shared", "memory:shared", ""),
        ("memory://shared/xo", "memory:shared", "xo/"),
    ],
)
def test_a_url_names_a_store_and_a_prefix(url: str, name: str, prefix: str) -> None:
    provider, found = open_provider(config(url), KEYS)

    assert (provider.name, found) == (name, prefix)
    provider.close()


def test_a_store_in_memory_is_shared_by_its_name() -> None:
    first, _ = open_provider(config("memory:one"), None)
    again, _ = open_provider(config("memory:one"), None)
    other, _ = open_provider(config("memory:two"), None)

    assert isinstance(first, Memory)
    assert first is again
    assert first is not other


def test_an_unknown_scheme_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"b.toml: \[repository.x\]: url: no provider for ftp://"):
        open_provider(config("ftp://server/path"), None)


def test_an_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match="provider: no profile 'seaweed' — did you mean 'seaweedfs'"
    ):
        open_provider(config("s3://acme", provider="seaweed"), KEYS)


def test_a_profile_without_an_address_asks_for_one() -> None:
    with pytest.raises(ConfigError, match="endpoint_url is missing"):
        open_provider(config("s3://acme", provider="seaweedfs"), KEYS)


def test_a_ca_bundle_that_is_none_is_said(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("not a certificate")

    for path in (wrong, tmp_path / "absent.pem"):
        with pytest.raises(ConfigError, match=f"ca_bundle: {path}"):
            open_provider(config("s3://acme", ca_bundle=str(path)), KEYS)


def test_an_endpoint_of_which_nothing_is_known_is_trusted_with_little() -> None:
    provider, _ = open_provider(config("s3://acme", endpoint_url="https://s3.example.com"), KEYS)

    assert isinstance(provider, S3)
    assert not provider.abilities.conditional_put
    assert not provider.abilities.lists_in_order
    provider.close()


@pytest.mark.parametrize(
    ("bucket", "provider", "url"),
    [
        ("acme", "aws", "https://acme.s3.eu-west-3.amazonaws.com/"),
        ("acme.backup", "aws", "https://s3.eu-west-3.amazonaws.com/acme.backup/"),
        ("acme", "seaweedfs", "https://s3.eu-west-3.amazonaws.com/acme/"),
    ],
)
def test_a_bucket_is_addressed_as_its_profile_says(bucket: str, provider: str, url: str) -> None:
    from backgate.gateway.profiles import profile

    connection = Connection(
        bucket=bucket,
        endpoint_url="https://s3.eu-west-3.amazonaws.com",
        region="eu-west-3",
        profile=profile(provider),
        credentials=KEYS,
    )

    assert connection.bucket_url == url


def test_two_plug_ins_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = EntryPoint("s3", "theirs:open_url", "backgate.providers")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [theirs])

    with pytest.raises(ConfigError, match="two plug-ins are called 's3'"):
        schemes()


@pytest.mark.parametrize("value", ["no_such_package:open_url", "backgate.gateway.units:open_url"])
def test_a_plug_in_that_cannot_be_loaded_is_said(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = EntryPoint("tape", value, "backgate.providers")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [theirs])

    with pytest.raises(ConfigError, match=r"backgate.providers: 'tape' of .* cannot be loaded"):
        open_provider(config("tape://robot"), None)


def test_a_plug_in_adds_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = EntryPoint("tape", "backgate.gateway.providers.memory:open_url", "backgate.providers")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [theirs])

    provider, _ = open_provider(config("tape://robot"), None)

    assert isinstance(provider, Memory)

import sys
from pathlib import Path

import pytest

from backgate.gateway.config import repository_config
from backgate.gateway.errors import ConfigError
from backgate.gateway.metadata.place import Shared, opened_index, place_of


def shared(**table: str) -> Shared:
    config = repository_config("r", {"url": "s3://bucket", **table}, "here")
    place = place_of(config, Path("/nowhere"), {"PG": "secret"})
    assert isinstance(place, Shared)
    return place


def test_without_a_database_the_index_is_in_the_cache() -> None:
    config = repository_config("r", {"url": "s3://bucket"}, "here")

    assert place_of(config, Path("/cache/r")) == Path("/cache/r")


def test_the_schema_is_ours_and_everything_else_is_for_libpq() -> None:
    found = shared(
        metadata="postgresql://u@a:1,b:2/db?sslmode=verify-full&schema=offsite&service=x",
        metadata_password="env:PG",
    ).server

    assert found.url == "postgresql://u@a:1,b:2/db?sslmode=verify-full&service=x"
    assert (found.schema, found.password) == ("offsite", "secret")
    assert "secret" not in repr(found)


def test_without_a_schema_there_is_a_usual_one_and_no_password_is_needed() -> None:
    found = shared(metadata="postgresql:///db").server

    assert (found.url, found.schema, found.password) == ("postgresql:///db", "backgate", None)


def test_stores_differ_by_their_address() -> None:
    url = "postgresql:///db"
    one = shared(metadata=url, endpoint_url="http://one").store

    assert one != shared(metadata=url, endpoint_url="http://other").store
    assert one == shared(metadata=url, endpoint_url="http://one/").store


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@host/db",
        "postgres://u:@host/db",
        "postgresql://host/db?password=secret",
        "postgresql://host/db?sslmode=require&Password=secret",
    ],
)
def test_a_password_in_the_configuration_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="must not carry a password") as caught:
        shared(metadata=url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://host/db", "postgresql", "postgresql://a b"])
def test_what_is_no_address_of_a_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="metadata: must be a URL"):
        shared(metadata=url)


@pytest.mark.parametrize("schema", ["", "Upper", 'x";drop', "1x", "x" * 64])
def test_a_schema_that_needs_quotes_is_refused(schema: str) -> None:
    with pytest.raises(ConfigError, match="schema must be"):
        shared(metadata=f"postgresql://host/db?schema={schema}")


async def test_a_missing_driver_is_named_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(ConfigError, match=r"pip install 'backgate\[postgresql\]'"):
        await opened_index(shared(metadata="postgresql:///db"))

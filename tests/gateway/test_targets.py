"""A TARGET is a repository by name, URL or path, and behind a colon a path in its tree."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.config import Configuration, repository_config
from backgate.gateway.errors import ConfigError, UsageError
from backgate.gateway.targets import Target, parse_target, resolve

HERE = Path.cwd()
OFFSITE = repository_config(
    "offsite",
    {"url": "s3://acme/xo", "region": "us-west-004", "secrets": {"restic": "env:A"}},
    "f.toml: [repository.offsite]",
)
CONFIGURATION = Configuration(Path("/etc/backgate/backgate.toml"), {"offsite": OFFSITE})


@pytest.mark.parametrize(
    ("text", "repository", "path"),
    [
        ("offsite", "offsite", ""),
        ("offsite:", "offsite", ""),
        ("offsite:/", "offsite", ""),
        ("offsite:backups/restic/web/web01/latest", "offsite", "backups/restic/web/web01/latest"),
        ("offsite:/backups//tar/", "offsite", "backups/tar"),
        ("offsite:repository/a:b", "offsite", "repository/a:b"),
        ("s3://bucket/prefix", "s3://bucket/prefix", ""),
        ("s3://bucket/a:b", "s3://bucket/a:b", ""),
        ("s3://bucket/a:b:backups/x", "s3://bucket/a:b", "backups/x"),
        ("s3://bucket:repository", "s3://bucket", "repository"),
        ("s3://bucket:repository-old", "s3://bucket:repository-old", ""),
        ("s3://bucket:", "s3://bucket", ""),
        ("file:///srv/x:backups", "file:///srv/x", "backups"),
        ("/srv/x", "file:///srv/x", ""),
        ("/srv/a:b:/backups/tar", "file:///srv/a:b", "backups/tar"),
        ("./dir:backups", f"file://{HERE}/dir", "backups"),
        (".", f"file://{HERE}", ""),
        ("../x:repository/y:backups", f"file://{HERE.parent}/x", "repository/y:backups"),
        ("~/x", f"file://{Path.home()}/x", ""),
    ],
)
def test_a_target_is_cut_at_the_right_colon(text: str, repository: str, path: str) -> None:
    assert parse_target(text) == Target(repository, path)


@pytest.mark.parametrize("text", ["", ":backups", "a/b", "a b", "-x", "ä"])
def test_what_is_neither_name_nor_url_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither a repository's name nor a URL"):
        parse_target(text)


def test_a_path_in_the_tree_cannot_climb() -> None:
    with pytest.raises(UsageError, match=r"cannot contain '..'"):
        parse_target("offsite:backups/../repository")


@given(st.text(alphabet=":/ab.", max_size=12), st.sampled_from(["repository", "backups"]))
def test_any_directory_can_be_named_with_any_place_in_its_tree(directory: str, top: str) -> None:
    target = parse_target(f"/srv/{directory}x:{top}/a:b")

    assert target.path == f"{top}/a:b"
    assert target.repository.startswith("file:///")


def test_a_target_is_shown_as_it_is_written() -> None:
    assert str(Target("offsite", "backups/tar")) == "offsite:backups/tar"
    assert str(Target("offsite")) == "offsite"


def test_a_name_is_looked_up_in_the_configuration() -> None:
    assert resolve(parse_target("offsite:backups"), CONFIGURATION, {}) is OFFSITE


def test_options_change_what_is_configured() -> None:
    options = {"region": "eu", "secrets": {"xo": "env:B"}}

    found = resolve(parse_target("offsite"), CONFIGURATION, options)

    assert (found.url, found.region) == ("s3://acme/xo", "eu")
    assert found.secrets == {"restic": "env:A", "xo": "env:B"}


def test_a_url_needs_no_configuration() -> None:
    found = resolve(parse_target("s3://b/p"), Configuration(), {"endpoint_url": "http://[::1]:1"})

    assert (found.name, found.url, found.endpoint_url) == ("b-p", "s3://b/p", "http://[::1]:1")


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^command line: endpoint_url: must be a URL"):
        resolve(parse_target("s3://b"), Configuration(), {"endpoint_url": "nonsense"})


@pytest.mark.parametrize(
    ("configuration", "hint"),
    [
        (CONFIGURATION, "/etc/backgate/backgate.toml — did you mean 'offsite'"),
        (Configuration(), "no configuration file was found — for a directory write ./offsit"),
    ],
)
def test_an_unknown_name_is_answered_with_a_hint(configuration: Configuration, hint: str) -> None:
    with pytest.raises(UsageError, match=f"no repository 'offsit': {hint}"):
        resolve(parse_target("offsit"), configuration, {})


def test_far_names_are_all_told() -> None:
    with pytest.raises(UsageError, match="known are offsite"):
        resolve(parse_target("zzz"), CONFIGURATION, {})

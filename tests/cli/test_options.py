"""What is typed goes before what is configured, and the environment completes URLs alone."""

from pathlib import Path

import click
import pytest

from backgate.cli.options import (
    chosen,
    directory_argument,
    repository_options,
    target_argument,
)
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import ConfigError, UsageError


def config(*arguments: str) -> RepositoryConfig:
    """Return the configuration that a command with `arguments` chooses."""

    @click.command()
    @target_argument
    @repository_options
    @click.pass_context
    def command(context: click.Context, target: str) -> RepositoryConfig:
        return chosen(context, target).config

    found = command.main(list(arguments), standalone_mode=False)
    assert isinstance(found, RepositoryConfig)
    return found


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "backgate.toml"
    path.write_text('[repository.offsite]\nurl = "s3://acme"\nregion = "here"\n')
    monkeypatch.setenv("BACKGATE_CONFIG", str(path))
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def test_options_go_before_the_configuration() -> None:
    found = config("offsite", "--region", "there", "--provider", "aws")

    assert (found.url, found.region, found.provider) == ("s3://acme", "there", "aws")


def test_the_environment_completes_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "there")

    url, named = config("s3://other"), config("offsite")

    assert (url.endpoint_url, url.region) == ("http://127.0.0.1:1", "there")
    assert (named.endpoint_url, named.region) == (None, "here")


@pytest.mark.parametrize("url", ["az://backups", "gs://backups"])
def test_what_is_meant_for_s3_completes_no_other_url(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "there")
    monkeypatch.setenv("BACKGATE_ACCOUNT", "acme")

    found = config(url)

    assert (found.endpoint_url, found.region, found.account) == (None, None, "acme")
    monkeypatch.setenv("BACKGATE_ENDPOINT_URL", "http://127.0.0.1:2")
    assert config(url).endpoint_url == "http://127.0.0.1:2"


def test_a_relative_file_is_meant_from_here(tmp_path: Path) -> None:
    found = config("offsite", "--credentials", "file:keys", "--secret", "restic=file:./pw")

    assert found.credentials == f"file:{tmp_path}/keys"
    assert found.secrets == {"restic": f"file:{tmp_path}/pw"}


def test_several_secrets_are_kept() -> None:
    found = config("offsite", "--secret", "restic=env:A", "--secret", "xen-orchestra=env:B=C")

    assert found.secrets == {"restic": "env:A", "xen-orchestra": "env:B=C"}


@pytest.mark.parametrize("secret", ["hunter2", "=hunter2", "restic=hunter2"])
def test_a_secret_itself_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(UsageError) as caught:
        config("offsite", "--secret", secret)

    assert "hunter2" not in str(caught.value)


def test_a_wrong_option_names_its_key() -> None:
    with pytest.raises(ConfigError, match="endpoint_url: must be a URL"):
        config("s3://acme", "--endpoint-url", "localhost")


def test_a_mount_point_is_not_looked_at_before_the_command_does(tmp_path: Path) -> None:
    """A mount there may hang, and `umount --abort` is what frees it."""
    (tmp_path / "file").touch()

    @click.command()
    @directory_argument
    def command(directory: str) -> str:
        return directory

    for name in ("file", "absent"):
        path = str(tmp_path / name)
        assert command.main([path], standalone_mode=False) == path

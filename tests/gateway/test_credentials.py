"""Secrets come from where the configuration says, only from private files, and are never shown."""

import json
import os
from pathlib import Path

import pytest

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import (
    AzureCredentials,
    Credentials,
    GoogleCredentials,
    credentials_of,
    secret_of,
)
from backgate.gateway.errors import ConfigError

KEYS = Credentials("AKIA", "s3cr3t")


def private(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def asking(reference: str) -> RepositoryConfig:
    return RepositoryConfig(
        name="a", url="s3://a", credentials=reference, origin="f.toml: [repository.a]"
    )


def with_secret(reference: str) -> RepositoryConfig:
    return RepositoryConfig(
        name="a", url="s3://a", secrets={"restic": reference}, origin="f.toml: [repository.a]"
    )


def test_nothing_in_the_environment_is_no_credentials() -> None:
    assert credentials_of(asking("env"), {}) is None


def test_the_environment_gives_all_three() -> None:
    environment = {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_SESSION_TOKEN": "token",
    }

    assert credentials_of(asking("env"), environment) == Credentials("AKIA", "s3cr3t", "token")


def test_half_of_a_pair_is_an_error() -> None:
    with pytest.raises(ConfigError, match="credentials: env: has no secret_key"):
        credentials_of(asking("env"), {"AWS_ACCESS_KEY_ID": "AKIA"})


@pytest.mark.parametrize(
    "content",
    [
        'access_key = "AKIA"\nsecret_key = "s3cr3t"\n',
        "access_key = AKIA\nsecret_key = s3cr3t\n",
        "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s3cr3t\n",
        "[acme]\naccess_key_id=AKIA\nsecret_access_key=s3cr3t\n",
    ],
    ids=["toml", "plain", "aws", "ini"],
)
def test_a_file_may_be_toml_or_ini(tmp_path: Path, content: str) -> None:
    path = private(tmp_path / "keys", content)

    assert credentials_of(asking(f"file:{path}")) == KEYS


def test_an_interpolation_sign_in_a_key_is_taken_as_it_is(tmp_path: Path) -> None:
    path = private(tmp_path / "keys", "access_key = AKIA\nsecret_key = a%b%(c)s\n")

    found = credentials_of(asking(f"file:{path}"))

    assert found is not None
    assert found.secret_key == "a%b%(c)s"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "keys", "access_key = AKIA\nsecret_key = s3cr3t\n", mode)

    with pytest.raises(ConfigError) as caught:
        credentials_of(asking(f"file:{path}"))

    assert str(caught.value) == (
        f"f.toml: [repository.a]: credentials: file:{path}: "
        f"others can read it (mode {mode:04o}): chmod 600 {path}"
    )


@pytest.mark.parametrize("content", ["s3cr3t", "[s3cr3t", "", b"\xff\xfes3cr3t", "[a]\nx=1"])
def test_a_broken_file_is_an_error_that_shows_nothing_of_it(
    tmp_path: Path, content: str | bytes
) -> None:
    path = private(tmp_path / "keys", content)

    with pytest.raises(ConfigError) as caught:
        credentials_of(asking(f"file:{path}"))

    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None or "s3cr3t" not in str(caught.value.__cause__.__cause__)


def test_a_profile_is_found_in_either_file_of_the_aws_tools(tmp_path: Path) -> None:
    first = private(
        tmp_path / "credentials",
        "[backup]\naws_access_key_id = AKIA\naws_secret_access_key = s3cr3t\n",
    )
    second = private(
        tmp_path / "config",
        "[profile other]\naws_access_key_id = AKIA\naws_secret_access_key = s3cr3t\n",
    )
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(first), "AWS_CONFIG_FILE": str(second)}

    assert credentials_of(asking("profile:backup"), environment) == KEYS
    assert credentials_of(asking("profile:other"), environment) == KEYS
    with pytest.raises(ConfigError, match="credentials: profile:none: neither"):
        credentials_of(asking("profile:none"), environment)


def test_a_systemd_credential_is_read_from_its_directory(tmp_path: Path) -> None:
    private(tmp_path / "offsite", "access_key = AKIA\nsecret_key = s3cr3t\n", 0o440)

    found = credentials_of(asking("systemd:offsite"), {"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert found == KEYS


def test_a_systemd_credential_outside_a_unit_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"CREDENTIALS_DIRECTORY is not set: .*LoadCredential"):
        credentials_of(asking("systemd:offsite"), {})


def test_neither_text_nor_repr_shows_a_secret() -> None:
    shown = f"{KEYS} {KEYS!r}"

    assert "AKIA" not in shown
    assert "s3cr3t" not in shown


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"hunter2\n", b"hunter2"),
        (b" \t hunter2 \r\n\n", b"hunter2"),
        (b"two words\n", b"two words"),
        (b"\xef\xbb\xbfhunter2\n", b"hunter2"),
        ("\ufeffhüt\n".encode("utf-16-le"), "hüt".encode()),
        ("hunter2\u00a0".encode(), b"hunter2"),
        (b"\xff\xf0\x01 ", b"\xff\xf0\x01"),
    ],
)
def test_a_secret_file_is_trimmed_as_restic_does(
    tmp_path: Path, content: bytes, secret: bytes
) -> None:
    path = private(tmp_path / "password", content)

    assert secret_of(with_secret(f"file:{path}"), "restic") == secret


def test_a_secret_from_the_environment_is_taken_as_it_is() -> None:
    assert secret_of(with_secret("env:PW"), "restic", {"PW": " a "}) == b" a "
    with pytest.raises(ConfigError, match=r"\[repository.a\]: secrets.restic: env:PW: the env"):
        secret_of(with_secret("env:PW"), "restic", {})


def test_a_format_without_a_secret_gets_none() -> None:
    assert secret_of(with_secret("env:PW"), "tar") is None


def test_an_endless_secret_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "password", b"x" * 70_000)

    with pytest.raises(ConfigError, match="longer than 65536 bytes"):
        secret_of(with_secret(f"file:{path}"), "restic")


def test_a_missing_file_is_named() -> None:
    path = f"/nonexistent-{os.getpid()}"

    with pytest.raises(ConfigError, match=f"secrets.restic: file:{path}: cannot be read: No such"):
        secret_of(with_secret(f"file:{path}"), "restic")


def at(url: str, reference: str) -> RepositoryConfig:
    return RepositoryConfig(
        name="a", url=url, credentials=reference, origin="f.toml: [repository.a]"
    )


ACCOUNT_KEY = "c2VjcmV0IGtleQ=="
CONNECTION_STRING = (
    f"DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={ACCOUNT_KEY};"
    "EndpointSuffix=core.windows.net"
)
SIGNATURE = "sv=2023-11-03&sp=rl&sig=abc%3D"


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"AZURE_STORAGE_ACCOUNT": "acme"}, None),
        (
            {"AZURE_STORAGE_ACCOUNT": "acme", "AZURE_STORAGE_KEY": ACCOUNT_KEY},
            AzureCredentials("acme", ACCOUNT_KEY),
        ),
        ({"AZURE_ACCOUNT_KEY": ACCOUNT_KEY}, AzureCredentials(key=ACCOUNT_KEY)),
        ({"AZURE_STORAGE_SAS_TOKEN": SIGNATURE}, AzureCredentials(sas=SIGNATURE)),
        (
            {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION_STRING},
            AzureCredentials("acme", ACCOUNT_KEY),
        ),
        (
            {"AZURE_STORAGE_KEY": ACCOUNT_KEY, "AZURE_STORAGE_SAS_TOKEN": SIGNATURE},
            AzureCredentials(key=ACCOUNT_KEY),
        ),
    ],
)
def test_azures_environment_is_read_as_its_tools_read_it(
    environment: dict[str, str], found: AzureCredentials | None
) -> None:
    assert credentials_of(at("az://backups", "env"), environment) == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f'account = "acme"\nkey = "{ACCOUNT_KEY}"\n', AzureCredentials("acme", ACCOUNT_KEY)),
        (f"account_key = {ACCOUNT_KEY}\n", AzureCredentials(key=ACCOUNT_KEY)),
        (f'sas = "{SIGNATURE}"\n', AzureCredentials(sas=SIGNATURE)),
        (CONNECTION_STRING + "\n", AzureCredentials("acme", ACCOUNT_KEY)),
        (
            f"BlobEndpoint=https://acme.blob.core.windows.net/;SharedAccessSignature={SIGNATURE}",
            AzureCredentials(sas=SIGNATURE),
        ),
    ],
)
def test_azures_files_hold_fields_or_a_connection_string(
    content: str, found: AzureCredentials, tmp_path: Path
) -> None:
    file = private(tmp_path / "azure", content)

    assert credentials_of(at("az://backups", f"file:{file}"), {}) == found


@pytest.mark.parametrize(
    ("url", "content", "words"),
    [
        ("az://backups", 'account = "acme"\n', "has no key, no sas and no connection_string"),
        ("az://backups", 'key = "s3cr3t!"\n', "not base64"),
        ("gs://backups", "s3cr3t", "not JSON"),
        ("gs://backups", '["s3cr3t"]', "type is none of service_account, authorized_user"),
        ("gs://backups", '{"type": "external_account"}', "type is none of"),
    ],
)
def test_a_file_that_opens_nothing_is_said_and_not_shown(
    url: str, content: str, words: str, tmp_path: Path
) -> None:
    file = private(tmp_path / "key", content)

    with pytest.raises(ConfigError, match=words) as caught:
        credentials_of(at(url, f"file:{file}"), {})

    assert "s3cr3t" not in str(caught.value)


def test_googles_key_file_is_found_where_its_tools_look(tmp_path: Path) -> None:
    account = {"type": "service_account", "client_email": "a@b"}
    named = private(tmp_path / "named.json", json.dumps(account))
    usual = private(tmp_path / "application_default_credentials.json", '{"type":"authorized_user"}')

    by_name = {"GOOGLE_APPLICATION_CREDENTIALS": str(named), "CLOUDSDK_CONFIG": str(tmp_path)}
    by_place = {"CLOUDSDK_CONFIG": str(usual.parent)}

    config = at("gs://backups", "env")
    assert credentials_of(config, by_name) == GoogleCredentials(account)
    assert credentials_of(config, by_place) == GoogleCredentials({"type": "authorized_user"})
    assert credentials_of(config, {"CLOUDSDK_CONFIG": str(tmp_path / "absent")}) is None
    assert credentials_of(at("gs://backups", f"file:{named}"), {}) == GoogleCredentials(account)


def test_a_profile_of_the_aws_tools_opens_no_other_store() -> None:
    for url in ("az://backups", "gs://backups"):
        with pytest.raises(ConfigError, match="the AWS tools' profiles"):
            credentials_of(at(url, "profile:acme"), {})


def test_no_credentials_show_themselves() -> None:
    shown = repr([AzureCredentials("acme", "s3cr3t", "s3cr3t"), GoogleCredentials({"a": "s3cr3t"})])

    assert "s3cr3t" not in shown

"""Every mistake in a configuration is named with its place, and with what would be right."""

import errno
import re
from pathlib import Path

import pytest

from backgate.gateway.config import load_configuration, read_configuration
from backgate.gateway.errors import ConfigError
from backgate.gateway.targets import parse_target, resolve
from backgate.gateway.units import GIB, MIB


def written(folder: Path, text: str) -> Path:
    path = folder / "backgate.toml"
    path.write_text(text)
    return path


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_configuration(written(folder, text))
    return str(caught.value)


def test_the_example_of_the_documentation_is_understood(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [repository.offsite]
        url = "s3://acme-backups/xo"
        provider = "backblaze-b2"
        region = "us-west-004"
        credentials = "systemd:off"
        writers = "exclusive"
        secrets = { restic = "systemd:restic", xen-orchestra = "file:/etc/backgate/xo.key" }
        """,
    )

    offsite = read_configuration(path).repositories["offsite"]

    assert (offsite.name, offsite.url) == ("offsite", "s3://acme-backups/xo")
    assert offsite.secrets["xen-orchestra"] == "file:/etc/backgate/xo.key"


def test_sizes_and_durations_are_texts_or_numbers(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[repository.a]\nurl = "/srv/a"\nspool = "10 GiB"\nblock_cache = 1048576\n'
        'patience = "1 h"\nmax_age = 5\ncapacity = "512MiB"\n',
    )

    a = read_configuration(path).repositories["a"]

    assert (a.spool, a.block_cache, a.capacity) == (10 * GIB, MIB, 512 * MIB)
    assert (a.patience, a.max_age) == (3600.0, 5.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("regoin = 'x'", ": unknown key 'regoin' — did you mean 'region'?"),
        ("colour = 'x'", ": unknown key 'colour' — known are account, attributes, "),
        ("name = 'x'", ": unknown key 'name'"),
        ("origin = 'x'", ": unknown key 'origin'"),
        ("region = 4", ": region: must be a text, not 4"),
        ("writers = 'me'", ': writers: must be "exclusive" or "shared", not \'me\''),
        ("spool = '10 GB/s'", ": spool: must be a size such as \"10 GiB\", not '10 GB/s'"),
        ("spool = -1", ": spool: must be a size"),
        ("spool = true", ": spool: must be a size"),
        ("capacity = '1 h'", ": capacity: must be a size"),
        ("patience = 'long'", ": patience: must be a duration such as \"1 h\", not 'long'"),
        ("staged = '*.tmp'", ': staged: must be a list of texts: ["...", "..."]'),
        ("secrets = 'x'", ": secrets: must be a table { FORMAT = "),
        ("secrets = { restic = 'hunter2' }", ": secrets.restic: must be env:NAME, file:/PATH or"),
        ("credentials = 'file:keys'", ": credentials: must be env, profile:NAME, file:/PATH or"),
        ("endpoint_url = 'localhost:9000'", ': endpoint_url: must be a URL such as "https://'),
        ("endpoint_url = 'http://me:pw@host'", ": endpoint_url: must be a URL"),
        ("ca_bundle = 'ca.pem'", ": ca_bundle: must be an absolute path, not 'ca.pem'"),
    ],
)
def test_a_wrong_line_is_named_with_what_would_be_right(
    tmp_path: Path, line: str, message: str
) -> None:
    text = complaint(tmp_path, f'[repository.offsite]\nurl = "s3://acme"\n{line}\n')

    assert text.startswith(f"{tmp_path}/backgate.toml: [repository.offsite]{message}")


@pytest.mark.parametrize("url", ["", "bucket", "s3://", "./here", "s3:/bucket"])
def test_a_url_must_be_one(tmp_path: Path, url: str) -> None:
    assert "[repository.a]: url: must be a URL" in complaint(
        tmp_path, f'[repository.a]\nurl = "{url}"\n'
    )


def test_a_url_is_required(tmp_path: Path) -> None:
    assert "[repository.a]: url is missing" in complaint(tmp_path, "[repository.a]\n")


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = complaint(tmp_path, '[repository.a]\nurl = "s3://me:hunter2@bucket"\n')

    assert "must not carry a user or a password" in text
    assert "hunter2" not in text


def test_a_literal_secret_is_refused_and_not_repeated(tmp_path: Path) -> None:
    lines = ("secrets = { restic = 'hunter2' }", "credentials = 'hunter2'")

    for line in lines:
        assert "hunter2" not in complaint(tmp_path, f'[repository.a]\nurl = "/srv"\n{line}\n')


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    assert "unknown table 'repositories' — did you mean 'repository'?" in complaint(
        tmp_path, '[repositories.a]\nurl = "/srv"\n'
    )


def test_a_name_that_could_not_be_a_target_is_refused(tmp_path: Path) -> None:
    assert "'a:b' cannot be a repository's name" in complaint(
        tmp_path, '[repository."a:b"]\nurl = "/srv"\n'
    )


def test_a_syntax_error_is_named_with_its_line(tmp_path: Path) -> None:
    assert "backgate.toml: not TOML: " in complaint(tmp_path, "[repository.a]\nurl = \n")
    assert "line 2" in complaint(tmp_path, "[repository.a]\nurl = \n")


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backgate.toml"
    path.write_bytes(b"a = '\xff'")

    with pytest.raises(ConfigError, match="not UTF-8 at byte 5"):
        read_configuration(path)


def test_a_chosen_file_that_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load_configuration({"BACKGATE_CONFIG": str(tmp_path / "absent.toml")})


def test_a_file_that_may_be_there_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path) -> None:  # as the home of another user is
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", closed)

    with pytest.raises(ConfigError, match=r"backgate\.toml: cannot be read: Permission denied"):
        load_configuration({"XDG_CONFIG_HOME": str(tmp_path)})


def test_the_users_own_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "backgate").mkdir()
    written(tmp_path / "backgate", '[repository.mine]\nurl = "/srv"\n')

    found = load_configuration({"XDG_CONFIG_HOME": str(tmp_path)})

    assert list(found.repositories) == ["mine"]


DESCRIBED = """
[provider.attic]
title = "the cluster in the attic"
conditional_put = "enforced"
limits = { part_min = "8 MiB" }

[repository.a]
url = "s3://backups"
provider = "attic"
endpoint_url = "http://127.0.0.1:8333"
"""


def test_a_provider_can_be_described_beside_its_repository(tmp_path: Path) -> None:
    a = read_configuration(written(tmp_path, DESCRIBED)).repositories["a"]

    assert a.profile is not None
    assert a.profile.abilities().conditional_put
    assert a.profile.abilities().limits.part_min == 8 * MIB


def test_a_described_provider_counts_for_a_url_too(tmp_path: Path) -> None:
    configuration = read_configuration(written(tmp_path, DESCRIBED))

    by_url = resolve(parse_target("s3://other"), configuration, {"provider": "attic"})
    another = resolve(parse_target("a"), configuration, {"provider": "aws"})

    assert by_url.profile == configuration.providers["attic"]
    assert another.profile is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[provider.aws]\ntitle = 'x'", r"\[provider.aws\]: 'aws' is there already"),
        ("[provider.x]", r"\[provider.x\]: .*title"),
        ("[provider.x]\ntitle = 'x'\ncolour = 1", "colour"),
        ("[provider.x]\ntitle = 'x'\nlimits = { part_mni = 1 }", "part_mni"),
        ("[provider.'a b']\ntitle = 'x'", "'a b' cannot be a provider's name"),
        ("[provider]\nx = 1", r"write \[provider.NAME\]"),
    ],
)
def test_a_mistake_in_a_description_is_named(table: str, words: str, tmp_path: Path) -> None:
    assert re.search(words, complaint(tmp_path, table))

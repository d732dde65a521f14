"""The doctor finds what is wrong, names it, and says how to mend it."""

import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS

from backgate.cli import checks
from backgate.gateway.config import Configuration, RepositoryConfig

COMMAND = Path(sys.executable).parent / "backgate"


def run(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true"}
    command = [str(COMMAND), "doctor", *arguments]
    return subprocess.run(command, env=environment | more, capture_output=True, text=True)


def repository(**more: object) -> RepositoryConfig:
    return RepositoryConfig(name="a", url="s3://a", **more)  # type: ignore[arg-type]


def subjects(findings: list[checks.Finding], state: str) -> list[str]:
    return [finding.subject for finding in findings if finding.state == state]


def test_too_few_descriptors_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))

    found = {finding.subject: finding for finding in checks.machine()}["open files"]

    assert found.state == "wrong"
    assert "LimitNOFILE=4096" in found.mend


def test_a_missing_device_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> os.stat_result:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(checks.os, "stat", missing)
    monkeypatch.setattr(checks.shutil, "which", lambda _: None)

    found = {finding.subject: finding for finding in checks.machine()}

    assert found["/dev/fuse"].state == "wrong"
    assert found["/dev/fuse"].mend.startswith("modprobe fuse")


def test_fusermount_is_needed_by_all_but_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.shutil, "which", lambda _: None)

    monkeypatch.setattr(checks.os, "geteuid", lambda: 1000)
    for_users = {finding.subject: finding for finding in checks.machine()}["fusermount3"]
    monkeypatch.setattr(checks.os, "geteuid", lambda: 0)
    for_root = {finding.subject: finding for finding in checks.machine()}["fusermount3"]

    assert (for_users.state, for_root.state) == ("wrong", "warning")


def test_secrets_and_credentials_are_looked_up(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("x")
    secret.chmod(0o644)
    config = repository(
        credentials="file:/nonexistent", secrets={"restic": f"file:{secret}", "tar": "env:UNSET_"}
    )

    found = list(checks.repository(config))

    assert subjects(found, "wrong") == ["a: credentials", "a: secrets.restic", "a: secrets.tar"]
    assert all(finding.mend for finding in found if finding.state == "wrong")


def test_a_secret_that_no_format_asks_for_is_wrong() -> None:
    found = list(checks.repository(repository(secrets={"retsic": "env:PATH"})))

    assert "a: secrets.retsic" in subjects(found, "wrong")


def test_an_empty_secret_is_a_warning(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.touch(0o600)

    found = list(checks.repository(repository(secrets={"restic": f"file:{secret}"})))

    assert "a: secrets.restic" in subjects(found, "warning")


def test_too_little_room_is_a_warning() -> None:
    found = list(checks.repository(repository(spool=2**60)))

    assert "a: folders" in subjects(found, "warning")


@pytest.mark.parametrize(
    ("skew", "state", "says"),
    [
        (None, "ok", "does not tell"),
        (-3.0, "ok", "3 s from"),
        (900.0, "wrong", "900 s behind"),
        (-61.0, "wrong", "61 s ahead of"),
    ],
)
def test_a_clock_that_is_off_is_wrong(skew: float | None, state: str, says: str) -> None:
    found = checks.clock(repository(), skew)

    assert found.state == state
    assert says in found.says


def test_no_configuration_is_a_warning() -> None:
    assert checks.configuration(Configuration()).state == "warning"


@pytest.mark.slow
def test_a_wrong_configuration_is_a_finding_and_not_the_end(tmp_path: Path) -> None:
    config = tmp_path / "backgate.toml"
    config.write_text('[repository.a]\nurl = "/srv"\nregoin = "x"\n')

    result = run(tmp_path, "--json", BACKGATE_CONFIG=str(config))

    found = {finding["subject"]: finding for finding in json.loads(result.stdout)}
    assert "did you mean 'region'?" in found["configuration"]["says"]
    assert "/dev/fuse" in found
    assert result.returncode == 1


@pytest.mark.slow
def test_a_missing_local_store_is_wrong_and_a_good_one_is_well(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()

    good, bad = run(tmp_path, f"{tmp_path}/store"), run(tmp_path, f"{tmp_path}/missing")

    assert "answers" in good.stdout
    assert str(tmp_path / "missing") in bad.stdout
    assert bad.returncode == 1


@pytest.mark.live
@pytest.mark.slow
def test_a_store_is_asked_and_its_clock_compared(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    options = ["--provider", "seaweedfs", "--endpoint-url", seaweedfs_server.endpoint_url]
    bucket = seaweedfs_server.bucket("doctor")
    right = seaweedfs_server.environment()
    wrong = right | {"AWS_SECRET_ACCESS_KEY": "hunter2"}

    good = run(tmp_path, f"s3://{bucket}", *options, "--json", **right)
    refused = run(tmp_path, f"s3://{bucket}", *options, "--json", **wrong)

    states = {finding["subject"]: finding for finding in json.loads(good.stdout)}
    assert states["doctor: store"]["state"] == "ok"
    assert "from the store's" in states["doctor: clock"]["says"]
    states = {finding["subject"]: finding for finding in json.loads(refused.stdout)}
    assert states["doctor: store"]["state"] == "wrong"
    assert states["doctor: clock"]["state"] == "ok"
    assert refused.returncode == 1
    assert "hunter2" not in refused.stdout + refused.stderr


def test_a_doctors_findings_name_the_file_of_a_secret_and_never_the_secret(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2")
    secret.chmod(stat.S_IRUSR)
    config = repository(secrets={"restic": f"file:{secret}"}, credentials=f"file:{secret}")

    said = repr(list(checks.repository(config)))

    assert str(secret) in said
    assert "hunter2" not in said


def test_a_database_that_does_not_answer_is_wrong() -> None:
    config = repository(metadata="postgresql://127.0.0.1:1/db?schema=offsite")

    found = {finding.subject: finding for finding in checks.repository(config)}["a: metadata"]

    assert found.state == "wrong"
    assert "postgresql://127.0.0.1:1/db (offsite): connection" in found.says

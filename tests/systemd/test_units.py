"""The units, as systemd itself reads them, and the helper that mount(8) runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # systemd-analyze loads many units

SYSTEMD = Path(__file__).parents[2] / "systemd"
COMMAND = Path(sys.executable).parent / "backgate"
EXPOSURE_MAX = 40  # tenths; 3.8 with all that leaves the mount visible

# Each gives the service a mount namespace, and hides its mount from everybody else.
HIDING = {
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "InaccessiblePaths",
    "LogNamespace",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "PrivateUsers",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "TemporaryFileSystem",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What a package would hold, for the command of this checkout."""
    run(SYSTEMD / "install.sh", COMMAND, DESTDIR=str(tmp_path))
    return tmp_path


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    "unit",
    ["backgate@.service", "backgate.target", "backgate-cache@.service", "backgate-cache@.timer"],
)
def test_systemd_finds_nothing_wrong_with_a_unit(root: Path, unit: str) -> None:
    assert run("systemd-analyze", "verify", root / "etc/systemd/system" / unit) == ""


def test_the_service_is_as_closed_as_a_visible_mount_allows(root: Path) -> None:
    service = root / "etc/systemd/system/backgate@.service"

    run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", service)

    chosen = {line.partition("=")[0] for line in service.read_text().splitlines()}
    assert not chosen & HIDING


def test_the_cache_is_refreshed_in_a_service_that_can_do_nothing_else(root: Path) -> None:
    service = root / "etc/systemd/system/backgate-cache@.service"

    run("systemd-analyze", "security", "--offline=true", "--threshold=20", service)

    assert f"\nExecStart={COMMAND} cache refresh %i\n" in service.read_text()


def test_the_timer_is_one_that_systemd_can_plan(root: Path) -> None:
    timer = (root / "etc/systemd/system/backgate-cache@.timer").read_text()
    when = next(line for line in timer.splitlines() if line.startswith("OnCalendar="))

    assert "Next elapse" in run("systemd-analyze", "calendar", when.partition("=")[2])


def test_the_service_runs_the_installed_command(root: Path) -> None:
    service = (root / "etc/systemd/system/backgate@.service").read_text()

    assert f"\nExecStart={COMMAND} mount %i /srv/backgate/%i --foreground " in service
    assert "/usr/bin/backgate" not in service


def test_user_and_folders_are_made(root: Path, tmp_path: Path) -> None:
    run("systemd-sysusers", "--dry-run", root / "usr/lib/sysusers.d/backgate.conf")
    folder = tmp_path / "made"
    (folder / "etc").mkdir(parents=True)
    for name in ("passwd", "group"):
        (folder / "etc" / name).write_text(
            "root:x:0:0::/root:/bin/sh\nbackgate:x:77:77::/:/bin/sh\n"
        )

    run(
        "systemd-tmpfiles",
        "--create",
        f"--root={folder}",
        root / "usr/lib/tmpfiles.d/backgate.conf",
    )

    assert (folder / "srv/backgate").stat().st_mode & 0o777 == 0o755
    assert (folder / "etc/backgate/credentials").stat().st_mode & 0o777 == 0o700


@pytest.fixture
def helper(root: Path, tmp_path: Path) -> Path:
    """The helper, with a command behind it that prints what it is given."""
    told = tmp_path / "told"
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    told.chmod(0o755)
    run(SYSTEMD / "install.sh", told, DESTDIR=str(root))
    return root / "sbin/mount.backgate"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["offsite", "/mnt"], ["mount", "offsite", "/mnt"]),
        (
            ["offsite", "/mnt", "-o", "rw,allow_other"],
            ["mount", "offsite", "/mnt", "-o", "rw,allow_other"],
        ),
        (
            ["s3://b/a b", "/mnt/a b", "-sv", "-t", "backgate", "-o", "ro", "-o", "view=backups"],
            ["mount", "s3://b/a b", "/mnt/a b", "-o", "ro,view=backups"],
        ),
        (["offsite", "/mnt", "-f"], []),
    ],
)
def test_the_helper_takes_what_mount_gives(
    helper: Path, arguments: list[str], command: list[str]
) -> None:
    assert run(helper, *arguments).splitlines() == command


def test_mount_runs_the_helper_for_a_line_of_fstab(helper: Path, tmp_path: Path) -> None:
    fstab, directory = tmp_path / "fstab", tmp_path / "mnt"
    directory.mkdir()
    fstab.write_text(f"offsite {directory} backgate allow_other,_netdev,noauto 0 0\n")
    # In a mount namespace of its own, where the helper lies beside what is in /sbin.
    installed = 'mount -t overlay overlay -o "lowerdir=$1:$2" "$2" && exec mount -T "$3" "$4"'
    sbin = os.path.realpath("/sbin")

    command = ["unshare", "--mount", "sh", "-c", installed, "sh"]
    told = run(*command, helper.parent, sbin, fstab, directory).splitlines()

    assert told[:3] == ["mount", "offsite", str(directory)]
    assert "allow_other" in told[4].split(",")


def test_the_helper_says_how_to_call_it(helper: Path) -> None:
    done = subprocess.run([helper, "offsite"], capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr == "usage: mount.backgate TARGET DIR [-sfnv] [-o OPTIONS]\n"


def test_installing_without_a_command_says_what_is_missing() -> None:
    done = subprocess.run([SYSTEMD / "install.sh", "/nowhere"], capture_output=True, text=True)

    assert done.returncode == 2
    assert "give its path" in done.stderr

"""Mount points as the kernel's table has them; what is mounted for real is in `tests/mounted`."""

import os
from pathlib import Path

import pytest

from backgate.fs.mountpoint import absolute, check_mountpoint, mounted_at, unmount, users
from backgate.gateway.errors import UsageError


def test_a_mount_point_is_called_as_the_kernel_calls_it(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "mnt").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "short").symlink_to("link/mnt")
    (tmp_path / "shorter").symlink_to(tmp_path / "short")

    for path in ("link/mnt", "link/mnt/", "short", "shorter/", "real/../link/./mnt"):
        assert absolute(f"{tmp_path}/{path}") == str(real / "mnt")
    assert absolute(str(tmp_path / "link" / "absent")) == str(real / "absent")
    assert absolute("/") == "/"


def test_symlinks_that_lead_nowhere_are_said(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(UsageError, match="too many symlinks"):
        absolute(str(tmp_path / "a"))


def test_the_kernels_table_knows_what_is_mounted(tmp_path: Path) -> None:
    found = mounted_at("/proc")

    assert found is not None
    assert (found.mountpoint, found.kind, found.is_fuse) == ("/proc", "proc", False)
    assert mounted_at(str(tmp_path)) is None


def test_an_empty_directory_is_a_mount_point(tmp_path: Path) -> None:
    check_mountpoint(str(tmp_path))


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=r"/absent: does not exist: make it with `mkdir -p"):
        check_mountpoint(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"/file: is not a directory"):
        check_mountpoint(str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"is not empty"):
        check_mountpoint(str(tmp_path))
    with pytest.raises(UsageError, match=r"/proc: a proc file system is mounted here"):
        check_mountpoint("/proc")


def test_nothing_mounted_is_unmounted_already(tmp_path: Path) -> None:
    unmount(str(tmp_path))
    unmount(str(tmp_path / "absent"), lazy=True)


def test_the_users_of_a_directory_are_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert users(str(tmp_path)) == []

    with open(tmp_path / "file"):
        (found,) = users(str(tmp_path))

    assert found.endswith(f"({os.getpid()})")

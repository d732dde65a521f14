"""Mount points as the kernel's table has them; what is mounted for real is in `tests/mounted`."""

import os
from pathlib import Path

import pytest

from backgate.fs.mountpoint import absolute, check_mountpoint, mounted_at, unmount, users
from backgate.gateway.errors import UsageError


def test_symlinks_above_a_mount_point_are_resolved_and_itself_not_touched(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "mnt").symlink_to("nowhere")

    assert absolute(str(tmp_path / "link" / "mnt")) == str(tmp_path / "real" / "mnt")
    assert absolute(str(tmp_path / "link" / "mnt") + "/") == str(tmp_path / "real" / "mnt")
    assert absolute("/") == "/"


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

"""Mounting as users do: the command returns when the mount answers, and others find and end it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.gateway import Gateway, gateway
from support.trees import run

pytestmark = [pytest.mark.mounted, pytest.mark.slow]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway over a local store with one archive in it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").write_text("content")
    run("tar", "-C", tmp_path, "-cf", tmp_path / "store" / "monday.tar", "home")
    with gateway(tmp_path / "gateway", {"url": f"file://{tmp_path}/store"}) as gateway_:
        yield gateway_
        for mount in gateway_.statuses():
            os.kill(mount["pid"], signal.SIGTERM)


def test_the_command_returns_when_the_mount_answers_and_umount_ends_it(
    made: Gateway, tmp_path: Path
) -> None:
    made.run("mount", "store", str(made.mountpoint))
    assert sorted(os.listdir(made.mountpoint)) == ["backups", "repository"]
    assert (made.backups / "tar/monday/home/file").read_text() == "content"
    (made.repository / "new").write_text("new")
    (status,) = made.statuses()

    made.run("umount", str(made.mountpoint))

    assert not os.path.ismount(made.mountpoint)
    assert (tmp_path / "store" / "new").read_text() == "new"
    assert status["writes"] is True
    assert made.statuses() == []


def test_the_running_mounts_are_shown(made: Gateway) -> None:
    made.run("mount", "store", str(made.mountpoint))

    head, *rows = made.run("status").stdout.splitlines()
    made.run("umount", str(made.mountpoint))

    assert head.split() == [
        "MOUNTPOINT", "TARGET", "UP", "PENDING", "FETCHED", "STORED", "LISTED", "STATE"
    ]  # fmt: skip
    (row,) = [row for row in rows if row.startswith(f"{made.mountpoint} ")]
    assert row.split()[:3] == [str(made.mountpoint), "store", "0:00"]
    assert row.endswith("ok")


def test_one_directory_of_the_tree_is_mounted_read_only(made: Gateway) -> None:
    made.run("mount", "store:backups/tar/monday/home", str(made.mountpoint))

    names = os.listdir(made.mountpoint)
    with pytest.raises(OSError, match="Read-only file system"):
        (made.mountpoint / "x").touch()
    options = subprocess.run(
        ["findmnt", "-no", "OPTIONS", str(made.mountpoint)], capture_output=True
    )
    made.run("umount", str(made.mountpoint))

    assert names == ["file"]
    assert options.stdout.startswith(b"ro,nosuid,nodev")


def test_a_view_is_the_mount_itself(made: Gateway, tmp_path: Path) -> None:
    made.run("mount", "store", str(made.mountpoint), "--view", "repository")

    (made.mountpoint / "x").write_text("1")
    names = os.listdir(made.mountpoint)
    made.run("umount", str(made.mountpoint))

    assert sorted(names) == ["monday.tar", "x"]
    assert (tmp_path / "store" / "x").exists()


def test_a_directory_of_the_repository_is_mounted_to_be_written(
    made: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "store" / "web").mkdir()
    (tmp_path / "store" / "web" / "old").touch()
    made.run("mount", "store:repository/web", str(made.mountpoint))

    (made.mountpoint / "new").write_text("1")
    made.run("umount", str(made.mountpoint))

    assert sorted(os.listdir(tmp_path / "store" / "web")) == ["new", "old"]


def test_what_is_not_there_cannot_be_mounted(made: Gateway) -> None:
    result = made.run("mount", "store:backups/tar/none", str(made.mountpoint), check=False)

    assert "No such file or directory" in result.stderr
    assert result.returncode == 1
    assert not os.path.ismount(made.mountpoint)


def test_commands_work_beside_a_mount(made: Gateway, tmp_path: Path) -> None:
    made.run("mount", "store", str(made.mountpoint))

    (made.repository / "new").write_text("new")
    listed = made.run("ls", "store:repository").stdout
    shown = made.run("cat", "store:repository/new").stdout
    made.run("cp", "-r", "store:backups/tar/monday/home", str(tmp_path / "restored"))
    status = made.json("cache", "status", "store")
    made.run("umount", str(made.mountpoint))

    assert listed == "monday.tar\nnew\n"
    assert shown == "new"
    assert (tmp_path / "restored/home/file").read_text() == "content"
    assert isinstance(status, dict)
    assert status["objects"] == 2


def test_a_file_that_is_open_is_in_the_spool_of_the_running_mount(made: Gateway) -> None:
    made.run("mount", "store", str(made.mountpoint))

    # Another process has it open: to start a command closes a copy of each descriptor of ours,
    # which stores the file as it is then.
    code = "import sys; f = open(sys.argv[1], 'wb', 0); f.write(b'12345'); print(flush=True)"
    code += "; input()"
    writer = [sys.executable, "-c", code, made.repository / "open"]
    with subprocess.Popen(writer, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pending = made.json("spool", "list", "store")
        shown = made.run("spool", "list", "store").stdout
        busy = made.run("spool", "discard", "store", "repository/open", "--yes", check=False)
        process.communicate(b"\n")
    after = made.json("spool", "wait", "store")
    made.run("umount", str(made.mountpoint))

    assert isinstance(pending, list)
    assert [(one["key"], one["size"], one["state"]) for one in pending] == [("open", 5, "open")]
    assert "repository/open" in shown
    assert busy.returncode == 1
    assert after == []


def test_a_staged_file_waits_in_the_spool_and_is_stored_when_asked(
    made: Gateway, tmp_path: Path
) -> None:
    made.run("mount", "store", str(made.mountpoint))

    (made.repository / "a.tmp").write_text("1")
    (made.repository / "b.tmp").write_text("2")
    pending = made.json("spool", "list", "store")
    made.run("spool", "discard", "store", "repository/b.tmp", "--yes")
    left = made.json("spool", "retry", "store", "repository/a.tmp")
    made.run("umount", str(made.mountpoint))

    assert isinstance(pending, list)
    assert sorted(one["key"] for one in pending) == ["a.tmp", "b.tmp"]
    assert left == []
    assert (tmp_path / "store" / "a.tmp").exists()
    assert not (tmp_path / "store" / "b.tmp").exists()


def test_what_a_crash_left_is_listed_and_stored_without_a_mount(
    made: Gateway, tmp_path: Path
) -> None:
    made.mount()
    (made.repository / "a.tmp").write_text("staged, and closed")
    unsynced = (made.repository / "unsynced").open("wb", buffering=0)
    unsynced.write(b"12345")
    synced = (made.repository / "synced").open("wb", buffering=0)
    synced.write(b"67890")
    os.fsync(synced.fileno())
    made.kill()
    for file in (synced, unsynced):
        with suppress(OSError):
            file.close()

    pending = made.json("spool", "list", "store")
    made.run("spool", "wait", "store")
    left = made.json("spool", "list", "store")
    made.run("spool", "retry", "store", "repository/a.tmp", "repository/unsynced")

    assert isinstance(pending, list)
    assert {one["key"]: one["state"] for one in pending} == {
        "a.tmp": "staged",
        "synced": "waiting",
        "unsynced": "left over",
    }
    assert isinstance(left, list)
    assert sorted(one["key"] for one in left) == ["a.tmp", "unsynced"]
    assert (tmp_path / "store" / "synced").read_text() == "67890"
    assert (tmp_path / "store" / "a.tmp").read_text() == "staged, and closed"
    assert (tmp_path / "store" / "unsynced").read_text() == "12345"
    assert made.json("spool", "list", "store") == []


def test_a_dead_mount_is_cleared_by_umount(made: Gateway) -> None:
    made.mount()
    made.kill()

    made.run("umount", str(made.mountpoint))

    assert os.listdir(made.mountpoint) == []


def test_a_mount_is_found_and_cleared_by_a_symlink_to_its_mount_point(made: Gateway) -> None:
    link = made.home / "link"
    link.symlink_to(made.mountpoint.name)
    made.run("mount", "store", str(link))
    assert made.run("mount", "store", str(link), check=False).stderr.count("already mounted") == 1
    (status,) = made.statuses()
    os.kill(status["pid"], signal.SIGKILL)
    with pytest.raises(OSError, match=r"not connected|abort"):
        while True:  # it is no child of ours
            os.listdir(made.mountpoint)

    made.run("mount", "store", str(link))
    assert (link / "repository").is_dir()

    made.run("umount", str(link))
    assert not os.path.ismount(made.mountpoint)


def test_a_mount_that_somebody_else_claims_to_serve_is_not_taken_for_unmounted(
    made: Gateway,
) -> None:
    """As root we hear every user; a lie about a mount must not end in `all is stored`."""
    made.mount()
    (status,) = made.statuses()
    folder = made.home / "run" / "backgate" / "claims"
    folder.mkdir(mode=0o700)
    claim = {"mountpoint": str(made.mountpoint), "target": "t", "pid": 1, "since": 1e12}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as liar:
        liar.bind(str(folder / "x.sock"))
        liar.listen()
        (folder / "x.mount.json").write_text(json.dumps(claim | {"socket": f"{folder}/x.sock"}))
        os.chown(folder / "x.sock", 65534, 65534)

        made.umount()

    assert not os.path.ismount(made.mountpoint)
    assert not Path(f"/proc/{status['pid']}").exists()


def test_umount_of_what_is_not_mounted_is_wrong_usage(made: Gateway) -> None:
    result = made.run("umount", str(made.mountpoint), check=False)

    assert result.stderr == f"backgate: {made.mountpoint}: nothing is mounted here\n"
    assert result.returncode == 2


def test_a_mount_in_use_is_not_unmounted_unless_aborted(made: Gateway) -> None:
    made.run("mount", "store", str(made.mountpoint))
    with subprocess.Popen(["sleep", "600"], cwd=made.repository) as user:
        refused = made.run("umount", str(made.mountpoint), check=False)
        made.run("umount", "--abort", str(made.mountpoint))
        user.kill()

    assert "in use by sleep" in refused.stderr
    assert refused.returncode == 1
    assert not os.path.ismount(made.mountpoint)


def test_two_mounts_cannot_write_one_repository(made: Gateway) -> None:
    (made.home / "second").mkdir()
    made.run("mount", "store", str(made.mountpoint))

    refused = made.run("mount", "store", str(made.home / "second"), check=False)
    made.run("mount", "store", str(made.home / "second"), "--read-only")
    names = os.listdir(made.home / "second" / "repository")
    made.run("umount", str(made.home / "second"))
    made.run("umount", str(made.mountpoint))

    assert refused.returncode == 2
    assert names == ["monday.tar"]

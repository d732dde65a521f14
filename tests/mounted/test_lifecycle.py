"""How a mount begins and ends: by command, by signal, from outside, by a crash."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from support.dict_tree import DictTree
from support.mounting import Mounted, launched, mounted

from backgate.fs import mountpoint
from backgate.fs.mountpoint import mounted_at, unmount
from backgate.fs.notify import notify
from backgate.fs.running import RunningMount, running
from backgate.fs.session import Backing, Pending
from backgate.fs.tree import Tree
from backgate.gateway.errors import BackgateError
from backgate.gateway.places import runtime_directories

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

NOBODY = "nobody"
AS_NOBODY = ["setpriv", "--reuid", NOBODY, "--regid", "nogroup", "--clear-groups"]


def some(happened: Callable[[str, bytes], None]) -> Tree:
    tree = DictTree()
    tree.happened = happened
    tree.add_file("file", b"content")
    return tree


def draining(until: Path) -> Backing:
    """A repository with one file that is stored once the file `until` exists."""

    async def drain() -> None:
        while not until.exists():  # noqa: ASYNC110 - another process makes it
            await trio.sleep(0.01)

    def pending() -> Pending:
        return Pending(0, 0) if until.exists() else Pending(1, 5 * 1024**2)

    async def status() -> Mapping[str, Any]:
        return {"target": "memory"}

    return Backing(drain=drain, pending=pending, status=status)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are private.

    Not called as a user's folder: what is mounted is shown to commands of tests beside us.
    """
    with tempfile.TemporaryDirectory(prefix="mounted-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def mount(tmp_path: Path, run: Path) -> Iterator[Mounted]:
    backing = draining(tmp_path / "stored")
    with mounted(some, tmp_path, runtime=run, backing=backing) as made:
        yield made


@pytest.fixture
def control(mount: Mounted, run: Path) -> RunningMount:
    (found,) = running([run])
    return found


def stored(mount: Mounted) -> None:
    (mount.log.parent / "stored").touch()


def test_a_mount_is_in_the_systems_table_as_ours(mount: Mounted) -> None:
    found = mounted_at(str(mount.path))

    assert found is not None and found.is_ours
    assert found.source == "memory"
    with open("/proc/self/mountinfo") as table:
        (line,) = [line for line in table if str(mount.path) in line]
    assert "nosuid" in line and "nodev" in line and "default_permissions" in line
    assert "allow_other" not in line


def test_sigterm_stores_then_unmounts(mount: Mounted) -> None:
    mount.kill(signal.SIGTERM)
    mount.wait_for(lambda: "stopping on SIGTERM" in mount.logged())
    assert (mount.path / "file").read_bytes() == b"content"
    with pytest.raises(OSError, match="Read-only"):
        (mount.path / "new").touch()

    stored(mount)

    assert mount.ended() == 0
    assert not mount.is_mounted()
    assert os.listdir(mount.path) == []


def test_a_second_signal_says_what_is_pending(mount: Mounted) -> None:
    writer = os.open(mount.path / "new", os.O_CREAT | os.O_WRONLY)
    mount.kill(signal.SIGTERM)
    mount.wait_for(lambda: "stopping" in mount.logged())

    mount.kill(signal.SIGTERM)

    said = "still waiting: 1 files (5.0 MiB) not yet in the store, 1 files open for writing"
    mount.wait_for(lambda: said in mount.logged())
    stored(mount)
    assert mount.ended() == 0
    with pytest.raises(OSError):
        os.write(writer, b"too late")
        os.close(writer)


def test_an_umount_from_outside_ends_the_process_once_all_is_stored(mount: Mounted) -> None:
    subprocess.run(["umount", mount.path], check=True)

    assert not mount.is_mounted()
    with pytest.raises(TimeoutError):
        mount.ended(within=0.2)
    stored(mount)
    assert mount.ended() == 0


def test_stop_is_refused_while_somebody_uses_the_mount(
    mount: Mounted, control: RunningMount
) -> None:
    stored(mount)
    with open(mount.path / "file") as file, pytest.raises(BackgateError, match="in use by") as busy:
        control.ask("stop")

    assert str(os.getpid()) in str(busy.value)
    assert file.closed
    assert (mount.path / "file").read_bytes() == b"content"
    assert control.ask("stop") == {"pending_files": 0, "pending_bytes": 0}
    assert mount.ended() == 0


def never_read(happened: Callable[[str, bytes], None]) -> Tree:
    """A file whose bytes never come."""

    async def hinder(verb: str, name: bytes) -> None:
        if verb == "read":
            await trio.sleep_forever()

    tree = DictTree()
    tree.happened, tree.hinder = happened, hinder
    tree.add_file("file", bytes(1 << 20))
    return tree


def test_an_umount_does_not_wait_for_what_nobody_reads_any_more(tmp_path: Path, run: Path) -> None:
    with mounted(never_read, tmp_path, runtime=run) as mount:
        (control,) = running([run])
        with open(mount.path / "file", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 1 << 20, os.POSIX_FADV_WILLNEED)
        mount.wait_for(lambda: "read file" in mount.happened())

        control.ask("stop", patience=60.0)

        assert mount.ended() == 0


def test_an_umount_from_outside_does_not_wait_for_what_nobody_reads(tmp_path: Path) -> None:
    with mounted(never_read, tmp_path) as mount:
        with open(mount.path / "file", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 1 << 20, os.POSIX_FADV_WILLNEED)
        mount.wait_for(lambda: "read file" in mount.happened())

        subprocess.run(["fusermount3", "-u", mount.path], check=True)

        assert mount.ended() == 0


def test_flush_reports_progress_until_all_is_stored(mount: Mounted, control: RunningMount) -> None:
    told: list[object] = []

    def progress(answer: object) -> None:
        told.append(answer)
        stored(mount)

    left = control.ask("flush", progress=progress)

    assert told[0] == {"files": 1, "bytes": 5 * 1024**2, "first": "", "reason": ""}
    assert left == {"pending_files": 0, "pending_bytes": 0}
    assert mount.is_mounted()


def test_status_tells_what_is_open(mount: Mounted, control: RunningMount) -> None:
    with open(mount.path / "file"), open(mount.path / "new", "w"):
        found = control.ask("status")

    assert (found["open_for_reading"], found["open_for_writing"]) == (1, 1)
    assert found["target"] == "memory"
    assert found["pending_files"] == 1


def test_abort_does_not_wait_for_the_store(mount: Mounted, control: RunningMount) -> None:
    mount.kill(signal.SIGTERM)
    mount.wait_for(lambda: "stopping" in mount.logged())

    assert control.ask("abort")["pending_files"] == 1

    assert mount.ended() == 0
    assert not mount.is_mounted()


def test_a_mount_leaves_nothing_in_the_runtime_directory(mount: Mounted, run: Path) -> None:
    (socket,) = run.glob("*.sock")
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert [found.pid for found in running([run])] == [mount.pid]

    stored(mount)
    mount.kill(signal.SIGINT)
    mount.ended()

    assert list(run.iterdir()) == []
    assert running([run]) == []


def test_a_dead_mount_where_sockets_are_looked_for_hinders_no_command(tmp_path: Path) -> None:
    path = Path(tempfile.mkdtemp(prefix="backgate-", dir="/tmp"))  # as a user's folder is called
    with mounted(some, tmp_path) as dead:
        subprocess.run(["mount", "--bind", dead.path, path], check=True)
        try:
            dead.kill(signal.SIGKILL)
            dead.ended()
            with pytest.raises(OSError, match="not connected"):
                os.listdir(path)

            assert all(found.pid != dead.pid for found in running(runtime_directories()))
            assert running([path]) == []
        finally:
            subprocess.run(["umount", "-l", path], check=True)
            path.rmdir()


def test_the_dead_mount_of_a_crash_is_cleared_at_the_next_start(tmp_path: Path, run: Path) -> None:
    with mounted(some, tmp_path, runtime=run) as first:
        held = os.open(first.path / "file", os.O_RDONLY)
        first.kill(signal.SIGKILL)
        first.ended()
        with pytest.raises(OSError, match="not connected"):
            os.listdir(first.path)

        with mounted(some, tmp_path, runtime=run) as second:
            assert (second.path / "file").read_bytes() == b"content"
            assert "cleared the dead mount" in second.logged()
            assert [found.pid for found in running([run])] == [second.pid]
        with pytest.raises(OSError, match="not connected"):
            os.close(held)


def test_a_mount_point_in_use_is_refused_and_left_alone(mount: Mounted, tmp_path: Path) -> None:
    with pytest.raises(BackgateError, match="already mounted here: unmount it with"):
        launched(some, tmp_path)

    assert (mount.path / "file").read_bytes() == b"content"


def test_a_mount_that_hangs_is_said_and_not_waited_for(
    mount: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "ANSWERS_WITHIN", 0.1)
    mount.kill(signal.SIGSTOP)
    try:
        with pytest.raises(BackgateError, match="a mount is there that does not answer"):
            mountpoint.check_mountpoint(str(mount.path))
    finally:
        mount.kill(signal.SIGCONT)


def test_the_table_says_who_mounted(mount: Mounted) -> None:
    found = mounted_at(str(mount.path))

    assert found is not None
    assert found.user == os.geteuid()


def test_a_mount_point_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mnt").write_text("a file")
    with pytest.raises(FileExistsError):
        launched(some, tmp_path)
    (tmp_path / "mnt").unlink()
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "something").touch()

    with pytest.raises(BackgateError, match="is not empty"):
        launched(some, tmp_path)


def test_an_ordinary_user_mounts_and_unmounts(public: Path) -> None:
    run = public / "run"
    run.mkdir()
    os.chmod(run, 0o777)
    with mounted(some, public, user=NOBODY, runtime=run) as mount:
        with open("/proc/self/mountinfo") as table:
            assert "nosuid" in next(line for line in table if str(mount.path) in line)
        read = subprocess.run(
            [*AS_NOBODY, "cat", mount.path / "file"],
            capture_output=True,
            check=True,
        )
        assert read.stdout == b"content"
        with pytest.raises(PermissionError):
            (mount.path / "file").read_bytes()  # not even root, without allow_other
        (control,) = running([run])
        control.ask("stop")

        assert mount.ended() == 0
        assert not mount.is_mounted()


def test_allow_other_is_refused_where_the_system_forbids_it(public: Path) -> None:
    with pytest.raises(BackgateError, match=r"user_allow_other.*fuse\.conf"):
        launched(some, public, user=NOBODY, allow_other=True)


def test_allow_other_lets_others_in_as_permissions_say(public: Path) -> None:
    with mounted(some, public, allow_other=True) as mount:
        reading = [*AS_NOBODY, "cat", mount.path / "file"]
        assert subprocess.run(reading, capture_output=True).stdout == b"content"
        assert subprocess.run([*AS_NOBODY, "touch", mount.path / "new"]).returncode != 0


def test_a_killed_mount_can_be_unmounted_by_hand(tmp_path: Path) -> None:
    with mounted(some, tmp_path) as mount:
        mount.kill(signal.SIGKILL)
        mount.ended()

        unmount(str(mount.path))

        assert not mount.is_mounted()


def test_the_service_manager_is_told_of_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def block(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if name == b"blocking":
            notify("stuck")
            time.sleep(0.5)  # noqa: ASYNC251 - the loop is to be stuck
            notify("going on")

    def make(happened: Callable[[str, bytes], None]) -> Tree:
        tree = DictTree()
        tree.happened, tree.hinder = happened, block
        return tree

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        with mounted(make, tmp_path) as mount:
            told = [manager.recv(4096)]
            while b"READY=1\nSTATUS=memory is mounted" not in told:
                told.append(manager.recv(4096))
            assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            assert "READY" not in "".join(map(str, told[:-1]))

            with subprocess.Popen(["stat", mount.path / "blocking"], stderr=subprocess.DEVNULL):
                until(manager, b"stuck")
                assert until(manager, b"going on") == []  # of ten, had the loop gone on

            mount.kill(signal.SIGTERM)
            until(manager, b"STOPPING=1")
            assert mount.ended() == 0


def until(manager: socket.socket, beginning: bytes) -> list[bytes]:
    """Return the messages that come before the one that begins so."""
    messages = []
    while not (message := manager.recv(4096)).startswith(beginning):
        messages.append(message)
    return messages


def test_a_machine_without_fuse_is_told_what_to_do(tmp_path: Path) -> None:
    program = "from backgate.fs.mountpoint import check_system; check_system()"
    hidden = 'mount -t tmpfs none /dev && exec "$0" -c "$1"'  # in a mount namespace of its own

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, sys.executable, program],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "/dev/fuse does not exist: load the kernel module with `modprobe fuse`" in done.stderr


def test_what_fuse_itself_objects_is_passed_on(public: Path) -> None:
    program = """
        import sys, trio
        from backgate.fs.mount import MountOptions, serve
        from support.dict_tree import DictTree

        async def run() -> None:
            await serve(DictTree(), sys.argv[1], MountOptions(target="x"), ready=print)

        trio.run(run)
    """
    somebody_elses = public / "mnt"
    somebody_elses.mkdir()

    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-c", textwrap.dedent(program), somebody_elses],
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "cannot be mounted: fusermount3: user has no write access to mountpoint" in done.stderr

"""A command that leaves its mount running behind it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from backgate.fs.background import LOG_MAX

pytestmark = pytest.mark.slow  # each test starts an interpreter

CHATTER = 100_000  # bytes of a line
PROGRAM = """
    import os, sys, time
    from pathlib import Path
    from backgate.fs.background import into_background, keep_short

    log, act = Path(sys.argv[1]), sys.argv[2]
    ready = into_background(log)
    if ready is None:
        print("the command goes on")
        sys.exit(0)
    if act == "refuse":
        print("no such bucket", file=sys.stderr)
        sys.exit(2)
    if act == "crash":
        os.abort()
    print("to the terminal", flush=True)
    ready()
    while act == "chatter":
        print("x" * 100_000, file=sys.stderr)
        keep_short(log)
        if Path(f"{log}.1").exists():
            print("the last line", file=sys.stderr)
            sys.exit(0)
    print("to the log", os.getsid(0) == os.getpid(), os.getcwd(), sys.stdin.read() == "")
"""


def run(tmp_path: Path, act: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "log"), act]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def written(log: Path) -> str:
    """Return what is in a log; it may just be put aside."""
    try:
        return log.read_text()
    except FileNotFoundError:
        return ""


def test_the_command_returns_once_the_mount_is_ready(tmp_path: Path) -> None:
    done = run(tmp_path, "serve")

    assert done.returncode == 0
    assert done.stdout.splitlines() == ["to the terminal", "the command goes on"]
    log = tmp_path / "log"
    assert log.stat().st_mode & 0o777 == 0o600
    while not log.read_text():
        os.sched_yield()
    assert log.read_text() == "to the log True / True\n"


def test_a_log_that_is_full_is_put_aside_and_never_grows_further(tmp_path: Path) -> None:
    log = tmp_path / "log"

    done = run(tmp_path, "chatter")

    assert done.returncode == 0
    while "the last line" not in written(log):
        os.sched_yield()
    kept = Path(f"{log}.1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert LOG_MAX <= kept.stat().st_size < LOG_MAX + CHATTER + 1
    assert log.stat().st_size < LOG_MAX
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_that_an_earlier_mount_filled_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * LOG_MAX)

    done = run(tmp_path, "serve")

    assert done.returncode == 0
    while not written(log):
        os.sched_yield()
    assert Path(f"{log}.1").stat().st_size == LOG_MAX
    assert log.read_text() == "to the log True / True\n"


def test_the_command_fails_as_the_mount_failed(tmp_path: Path) -> None:
    done = run(tmp_path, "refuse")

    assert done.returncode == 2
    assert done.stderr == "no such bucket\n"
    assert done.stdout == ""
    assert not (tmp_path / "log").exists()


def test_a_mount_that_dies_before_it_is_ready_is_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path, "crash").returncode == 1


def test_the_log_is_not_written_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")

    assert run(tmp_path, "serve").returncode == 1
    assert not (tmp_path / "elsewhere").exists()

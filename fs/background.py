"""Go on in the background: the command returns once the mount answers, or fails as it failed."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

LOG_MODE = 0o600
READY = b"1"


def into_background(log: Path) -> Callable[[], None] | None:
    """Fork, and return in the new process a function for it to call once it is ready.

    In the calling process it returns None when that was called, and raises `SystemExit` with the
    new process's exit code when that ended before; what it had to say is then already on standard
    error. From the call on, what the new process prints goes to the end of the file `log`.

    To be called before trio or any thread was started.
    """
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        _wait(child, told)
        return None
    os.close(told)
    os.setsid()  # of no terminal: no SIGHUP or SIGINT of the command's terminal reaches it
    os.chdir("/")

    def ready() -> None:
        _redirect(log)
        os.write(tell, READY)
        os.close(tell)

    return ready


def _wait(child: int, told: int) -> None:
    try:
        is_ready = os.read(told, len(READY)) == READY
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        raise
    finally:
        os.close(told)
    if is_ready:
        return
    _, status = os.waitpid(child, 0)
    # A process ended by a signal has a negative code here; a shell would see 128 and more.
    code = os.waitstatus_to_exitcode(status)
    raise SystemExit(code if code > 0 else 1)


def _redirect(log: Path) -> None:
    """Take standard input from nowhere, and put what is printed into `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_RDONLY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    output = os.open(log, flags, LOG_MODE)
    for number, target in ((0, nowhere), (1, output), (2, output)):
        os.dup2(target, number)
    os.close(nowhere)
    os.close(output)

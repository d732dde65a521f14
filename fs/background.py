"""Go on in the background: the command returns once the mount answers, or fails as it failed."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backgate.gateway.units import MIB

LOG_MODE = 0o600
LOG_MAX = 8 * MIB  # bytes; one file that is full is kept beside the one that is written
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
        keep_short(log)
        os.write(tell, READY)
        os.close(tell)

    return ready


def keep_short(log: Path) -> None:
    """Put `log`, into which standard error goes, aside once it is full, and go on in a new one.

    Mounts of one repository share it: whoever finds it put aside by another follows.
    """
    written = os.fstat(2)
    if written.st_size < LOG_MAX:
        return
    with suppress(OSError):  # then it goes on where it is
        with suppress(FileNotFoundError):
            if os.path.samestat(written, os.stat(log)):
                os.replace(log, f"{log}.1")
        _redirect(log)


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

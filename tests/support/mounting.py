"""Mount any tree for a test, in a process of its own: pyfuse3 holds one session per process."""

import contextlib
import logging
import os
import pwd
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from backgate.fs.mount import MountOptions, serve
from backgate.fs.mountpoint import mounted_at, unmount
from backgate.fs.tree import Tree
from backgate.gateway.errors import BackgateError

ENDS_WITHIN = 120.0  # seconds
LOOK_EVERY = 0.01  # seconds
MakeTree = Callable[[Callable[[str, bytes], None]], Tree | AbstractAsyncContextManager[Tree]]


@dataclass
class Mounted:
    """A mount that a test made."""

    path: Path
    pid: int
    log: Path
    happenings: Path
    code: int | None = None  # how the process ended

    def happened(self) -> list[str]:
        """Return the calls that the tree had so far, each as `verb name`."""
        return self.happenings.read_text().splitlines()

    def logged(self) -> str:
        """Return what the process logged so far."""
        return self.log.read_text()

    def kill(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def ended(self, within: float = ENDS_WITHIN) -> int:
        """Return the process's exit code, negative for a signal, once it has ended."""
        deadline = time.monotonic() + within
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"the mount still runs:\n{self.logged()}")
            time.sleep(LOOK_EVERY)
        return self.code

    def is_mounted(self) -> bool:
        """True while the kernel has it."""
        return mounted_at(str(self.path)) is not None

    def wait_for(self, condition: Callable[[], bool], within: float = ENDS_WITHIN) -> None:
        """Return once `condition` is true; another process makes it so."""
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come true:\n{self.logged()}")
            time.sleep(LOOK_EVERY)


@contextlib.contextmanager
def mounted(
    make_tree: MakeTree, home: Path, *, user: str | None = None, **options: Any
) -> Iterator[Mounted]:
    """Mount what `make_tree(happened)` returns at `home/mnt`, as `user`, for as long as needed."""
    mount = launched(make_tree, home, user=user, **options)
    try:
        yield mount
    finally:
        clear(mount)


def launched(
    make_tree: MakeTree, home: Path, *, user: str | None = None, **options: Any
) -> Mounted:
    """Mount, and leave it to the caller to `clear` it; `BackgateError` as `serve` raises it."""
    path = home / "mnt"
    path.mkdir(exist_ok=True)
    log, happenings = home / "log", home / "happenings"
    log.touch()
    happenings.touch()
    if user is not None:
        os.chmod(home, 0o777)
        for made in (path, log, happenings):
            os.chown(made, pwd.getpwnam(user).pw_uid, -1)
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _run(make_tree, Mounted(path, 0, log, happenings), user, options, tell)
    os.close(tell)
    mount = Mounted(path, pid, log, happenings)
    with open(told, "rb") as answers:
        answer = answers.read().decode()
    if answer != "ready":
        mount.ended()
        raise BackgateError(answer or mount.logged())
    return mount


def clear(mount: Mounted) -> None:
    """End the process, however it is doing, and unmount what is left."""
    if mount.code is None:
        with contextlib.suppress(ProcessLookupError):
            mount.kill(signal.SIGKILL)
        mount.ended()
    while mount.is_mounted():
        unmount(str(mount.path), lazy=True)


def _run(
    make_tree: MakeTree, mount: Mounted, user: str | None, options: dict[str, Any], tell: int
) -> None:
    code = 3
    try:
        if user is not None:
            account = pwd.getpwnam(user)
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        logging.basicConfig(filename=mount.log, level=logging.INFO, force=True)
        code = _serve(make_tree, mount, options, tell)
    except BaseException:
        with open(mount.log, "a") as log:
            traceback.print_exc(file=log)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _serve(make_tree: MakeTree, mount: Mounted, options: dict[str, Any], tell: int) -> int:
    with open(mount.happenings, "ab", buffering=0) as happenings:

        def happened(verb: str, name: bytes) -> None:
            happenings.write(f"{verb} {name.decode('utf-8', 'backslashreplace')}\n".encode())

        def ready() -> None:
            os.write(tell, b"ready")
            os.close(tell)

        chosen = MountOptions(target="memory", **options)

        async def run() -> None:
            made = make_tree(happened)
            async with AsyncExitStack() as stack:
                if isinstance(made, AbstractAsyncContextManager):
                    made = await stack.enter_async_context(made)
                await serve(made, str(mount.path), chosen, ready=ready)

        try:
            trio.run(run)
        except BackgateError as error:
            with contextlib.suppress(OSError):
                os.write(tell, str(error).encode())
            logging.exception("it could not be served")
            return 1
    return 0

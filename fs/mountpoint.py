"""A mount point as the system sees it: is it free, dead, busy; and unmounting it.

What a path leads to is read from the kernel's table of mounts first, because a stat(2) of a mount
whose server hangs would hang as well.
"""

import ctypes
import errno
import logging
import os
import re
import select
import shutil
import stat
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass

from backgate.gateway.errors import BackgateError, UsageError

SUBTYPE = "backgate"
CAP_SYS_ADMIN = 1 << 21  # capabilities(7), as a bit of /proc/self/status
MNT_DETACH = 2  # umount2(2): out of the tree at once, gone when nobody uses it
UNMOUNT_WITHIN = 20.0  # seconds for fusermount3, which does nothing that takes long
SYMLINKS_MAX = 40  # followed on one path, as Linux does
ANSWERS_WITHIN = 15.0  # seconds; a mount that says nothing for so long is hung
USERS_MAX = 5  # processes named in a message

log = logging.getLogger(__name__)
_USER = re.compile(r"(?:^|,)user_id=(\d+)")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the kernel's table of mounts."""

    mountpoint: str
    kind: str  # "fuse.backgate", "ext4"
    source: str  # for ours: the target that is mounted
    user: int | None = None  # of a FUSE mount: who mounted it

    @property
    def is_fuse(self) -> bool:
        return self.kind == "fuse" or self.kind.startswith("fuse.")

    @property
    def is_ours(self) -> bool:
        return self.kind == f"fuse.{SUBTYPE}"


class Busy(BackgateError):
    """A mount is in use and so cannot be unmounted."""


def absolute(path: str) -> str:
    """Return `path` without symlinks, as the kernel's table has it.

    Nothing is asked of what is mounted at it: the root of a mount is no symlink, and the kernel
    knows that by itself.
    """
    for _ in range(SYMLINKS_MAX):
        parent, name = os.path.split(os.path.abspath(path))
        if not name:
            return parent
        parent = os.path.realpath(parent)
        path = os.path.join(parent, name)
        try:
            path = os.path.join(parent, os.readlink(path))
        except OSError:
            return path
    raise UsageError(f"{path}: too many symlinks")


def mounted_at(mountpoint: str) -> Mounted | None:
    """Return what is mounted at `mountpoint` (an `absolute` path), the topmost; or None."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            where = _plain(before.split(" ")[4])
            if where == mountpoint:
                kind, source, options = after.rstrip("\n").split(" ")[:3]
                user = _USER.search(options)
                found = Mounted(where, kind, _plain(source), int(user[1]) if user else None)
    return found


def check_system() -> None:
    """Return when this process can mount at all; `BackgateError` says how to mend it."""
    if not os.path.exists("/dev/fuse"):
        raise BackgateError("/dev/fuse does not exist: load the kernel module with `modprobe fuse`")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise BackgateError("/dev/fuse cannot be opened: allow it with `chmod 666 /dev/fuse`")
    if not may_mount() and shutil.which("fusermount3") is None:
        raise BackgateError("fusermount3 is missing: install the package fuse3")


def check_mountpoint(mountpoint: str) -> None:
    """Return when `mountpoint` (an `absolute` path) is free; a dead mount on it is cleared away.

    Blocks until a mount that is there has answered. Raises `UsageError` that says what is in the
    way, `BackgateError` when that does not answer.
    """
    mounted = clear_dead(mountpoint)
    if mounted is not None and mounted.is_ours:
        raise UsageError(
            f"{mountpoint}: {mounted.source} is already mounted here: "
            f"unmount it with `backgate umount {mountpoint}`"
        )
    if mounted is not None:
        raise UsageError(f"{mountpoint}: a {mounted.kind} file system is mounted here")
    _check_directory(mountpoint)


def clear_dead(mountpoint: str) -> Mounted | None:
    """Clear away a dead mount on `mountpoint`, and return what is mounted there then.

    Blocks until a mount that is there has answered. Raises `BackgateError` when it does not.
    """
    mounted = mounted_at(mountpoint)
    if mounted is None or not mounted.is_fuse or not _is_dead(mountpoint):
        return mounted
    log.warning("%s: cleared the dead mount that an earlier process left", mountpoint)
    unmount(mountpoint, lazy=True)
    return mounted_at(mountpoint)


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Unmount `mountpoint`; with `lazy`, even when it is in use. Nothing mounted is no error.

    Blocks; call it from a thread when this process serves the mount. Raises `Busy` and
    `BackgateError`.
    """
    code = _umount2(mountpoint, MNT_DETACH if lazy else 0)
    if code == errno.EPERM:
        _fusermount(mountpoint, lazy=lazy)
    elif code == errno.EBUSY:
        raise Busy(f"{mountpoint}: in use{_by_whom(mountpoint)}")
    elif code not in (0, errno.EINVAL, errno.ENOENT):
        raise BackgateError(f"{mountpoint}: cannot be unmounted: {os.strerror(code)}")


def is_cut_off() -> bool:
    """True when the kernel asks nothing more of this process: no namespace has its mount."""
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == "/dev/fuse":
                connection = select.poll()
                connection.register(int(number), 0)  # what is reported then is its end
                return bool(connection.poll(0))
    return True


def users(mountpoint: str) -> list[str]:
    """Return the processes, as far as we may see them, that use `mountpoint`: `bash (1234)`."""
    return [
        f"{_command(pid)} ({pid})"
        for pid in os.listdir("/proc")
        if pid.isdigit() and any(_is_below(place, mountpoint) for place in _places(pid))
    ]


def may_mount() -> bool:
    """True when this process needs no set-uid helper: root, or a service with CAP_SYS_ADMIN."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) & CAP_SYS_ADMIN)


def allows_other_users() -> bool:
    """True when this process may pass `allow_other`."""
    if may_mount():
        return True
    try:
        with open("/etc/fuse.conf", encoding="utf-8", errors="replace") as file:
            return any(line.strip() == "user_allow_other" for line in file)
    except OSError:
        return False


def _is_dead(mountpoint: str) -> bool:
    """Ask the mount in a thread, which nothing can free from one that is hung."""
    found: list[int] = []

    def ask() -> None:
        try:
            os.statvfs(mountpoint)  # a stat(2) may be answered from what the kernel remembers
            found.append(0)
        except OSError as error:
            found.append(error.errno or 0)

    asking = threading.Thread(target=ask, name=f"ask {mountpoint}", daemon=True)
    asking.start()
    asking.join(ANSWERS_WITHIN)
    if not found:
        raise BackgateError(
            f"{mountpoint}: a mount is there that does not answer: end its process, "
            f"or clear it with `umount -l {mountpoint}`"
        )
    return found[0] == errno.ENOTCONN


def _check_directory(mountpoint: str) -> None:
    try:
        status = os.stat(mountpoint)
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{mountpoint}: is not a directory")
        if os.listdir(mountpoint):
            raise UsageError(
                f"{mountpoint}: is not empty, and what is in it would be hidden: "
                "choose an empty directory"
            )
    except FileNotFoundError:
        raise UsageError(
            f"{mountpoint}: does not exist: make it with `mkdir -p {mountpoint}`"
        ) from None
    except OSError as error:
        raise UsageError(f"{mountpoint}: {error.strerror}") from error


def _umount2(mountpoint: str, flags: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.umount2(os.fsencode(mountpoint), flags) else 0


def _fusermount(mountpoint: str, *, lazy: bool) -> None:
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", mountpoint]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=UNMOUNT_WITHIN, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackgateError(f"{mountpoint}: fusermount3 did not unmount it: {error}") from error
    if done.returncode == 0 or mounted_at(mountpoint) is None:
        return
    if "busy" in done.stderr:
        raise Busy(f"{mountpoint}: in use{_by_whom(mountpoint)}")
    raise BackgateError(f"{mountpoint}: cannot be unmounted: {done.stderr.strip()}")


def _by_whom(mountpoint: str) -> str:
    found = users(mountpoint)
    more = f" and {len(found) - USERS_MAX} more" if len(found) > USERS_MAX else ""
    return f" by {', '.join(found[:USERS_MAX])}{more}" if found else ""


def _places(pid: str) -> list[str]:
    """Return where the links of /proc/PID lead; reading one does not touch what it leads to."""
    links = [f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe")]
    with suppress(OSError):  # gone meanwhile, or somebody else's
        links += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    places = []
    for link in links:
        try:
            places.append(os.readlink(link))
        except OSError:
            continue
    return places


def _is_below(path: str, mountpoint: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint + "/")


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def _plain(escaped: str) -> str:
    """Undo the octal escapes of /proc/self/mountinfo; a space is `\\040`."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), escaped)

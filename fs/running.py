"""The mounts that run on this machine, and how a command speaks to one of them.

Each mount leaves a small file beside its control socket. A command finds it by mount point or
target and sends one request as a line of JSON; the answers are lines too: any number with progress,
one with the result.
"""

import hashlib
import json
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from backgate.gateway.errors import BackgateError

SUFFIX = ".mount.json"
DIGITS = 12  # hexadecimal, of the mount point's hash: names both files
LINE_MAX = 1 << 20  # bytes
CONNECT_WITHIN = 5.0  # seconds
ANSWER_WITHIN = 30.0  # seconds between two lines; a verb that takes longer sends progress

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunningMount:
    """What a mount tells of itself to those who look for it."""

    mountpoint: str
    target: str
    pid: int
    socket: str
    since: float  # seconds since 1970

    def ask(
        self,
        verb: str,
        arguments: Answer | None = None,
        *,
        progress: Callable[[Answer], None] = lambda answer: None,
        patience: float = ANSWER_WITHIN,
    ) -> Answer:
        """Send `verb` and return the result; `progress` is called with what comes before it.

        Raises `BackgateError` with what the mount objects, or when it says nothing for `patience`
        seconds.
        """
        try:
            with _connected(self.socket) as connection, connection.makefile("rb") as answers:
                connection.settimeout(patience)
                request = {"verb": verb, "arguments": dict(arguments or {})}
                connection.sendall(json.dumps(request).encode() + b"\n")
                while line := answers.readline(LINE_MAX):
                    answer = json.loads(line)
                    if "error" in answer:
                        raise BackgateError(answer["error"])
                    if "result" in answer:
                        return dict(answer["result"])
                    progress(answer.get("progress", {}))
        except (OSError, ValueError) as error:
            raise BackgateError(f"{self.mountpoint}: its process ({self.pid}): {error}") from error
        raise BackgateError(f"{self.mountpoint}: its process ({self.pid}) ended before it answered")

    @property
    def user(self) -> int | None:
        """Whose socket it is; None when it is gone."""
        try:
            return os.lstat(self.socket).st_uid
        except OSError:
            return None

    def is_alive(self) -> bool:
        """True when its process listens."""
        try:
            _connected(self.socket).close()
        except OSError:
            return False
        return True

    def wait_until_gone(self, patience: float) -> bool:
        """Return True once its process has ended, waited for by its parent or not.

        False after `patience` seconds.
        """
        try:
            process = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            ended = select.poll()
            ended.register(process, select.POLLIN)
            return bool(ended.poll(patience * 1000))  # milliseconds
        finally:
            os.close(process)


def describe(runtime: Path, mountpoint: str, target: str) -> RunningMount:
    """Return what this process will tell of the mount that it is about to make."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:DIGITS]
    path = str(runtime / f"{digest}.sock")
    return RunningMount(mountpoint, target, os.getpid(), path, time.time())


def register(mount: RunningMount) -> Path:
    """Write the file by which `mount` is found, and return its path."""
    path = Path(mount.socket).with_suffix(SUFFIX)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(mount)))
    os.replace(draft, path)
    return path


def running(folders: Iterable[Path]) -> list[RunningMount]:
    """Return the mounts that are registered below `folders` and alive, the oldest first."""
    found = {}
    for folder in folders:
        inner = [entry.path for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
        paths = [entry.path for one in (str(folder), *inner) for entry in _entries(one)]
        for path in sorted(Path(path) for path in paths if path.endswith(SUFFIX)):
            mount = _read(path)
            if mount is not None and mount.is_alive():
                found[mount.socket] = mount
    return sorted(found.values(), key=lambda mount: mount.since)


@contextmanager
def short_path(path: str) -> Iterator[str]:
    """Provide another path to `path`: a socket's address has 107 bytes (unix(7)), a path 4,095."""
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return what is in a folder that anybody may have made, and may be removing just now."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_WITHIN)
    try:
        with short_path(path) as short:
            connection.connect(short)
    except OSError:
        connection.close()
        raise
    return connection


def _read(path: Path) -> RunningMount | None:
    """Return what the file at `path` says; root reads those of users, who may write anything."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            told = msgspec.json.decode(file.read(LINE_MAX), type=RunningMount)
        is_beside = os.path.samefile(os.path.dirname(told.socket), path.parent)
        is_socket = stat.S_ISSOCK(os.lstat(told.socket).st_mode)
    except (OSError, ValueError, msgspec.DecodeError):
        return None  # gone meanwhile, somebody else's, or from another version
    return told if is_beside and is_socket else None

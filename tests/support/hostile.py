"""A parser worker with a file system that does whatever its disk says, to see the gateway survive.

Run as a program it is the worker. The first bytes of a disk name the deed: `b"DEED hang"`.
"""

import ctypes
import errno
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from backgate.fs.parser import containers, worker
from backgate.fs.parser.asked import NotGiven
from backgate.fs.parser.messages import FRAME_MAX, LENGTH
from backgate.fs.volume import Device, Extent, FileSystem, Node, Nodes
from backgate.fs.volumes import FILE_SYSTEMS
from backgate.gateway.errors import Damaged, FileError

MARK = b"DEED "
FAR = 8 << 20  # bytes; a place of a large disk that nobody looks at to know what it is
ROOT = Node(name=b"", handle=b"root", mode=stat.S_IFDIR | 0o755, inode=b"root")


def disk(deed: str) -> bytes:
    """Return a disk whose root directory does `deed` when it is listed."""
    return (MARK + deed.encode()).ljust(1 << 16, b"\0")


def _file(**facts: Any) -> Node:
    return Node(**{"name": b"file", "handle": b"file", "mode": stat.S_IFREG | 0o644} | facts)


LISTINGS: dict[str, list[Node]] = {
    "a slash in a name": [_file(name=b"../../etc/passwd")],
    "a zero in a name": [_file(name=b"a\0b")],
    "a name that is none": [_file(name=b"")],
    "the parent as a name": [_file(name=b"..")],
    "a name of 2000 bytes": [_file(name=b"n" * 2000)],
    "a name twice": [_file(), _file()],
    "a size below zero": [_file(size=-1)],
    "a size of 2**63": [_file(size=2**63)],
    "no type": [_file(mode=0o644)],
    "a symlink without target": [_file(mode=stat.S_IFLNK | 0o777)],
    "a target of a file": [_file(target=b"x")],
    "a target of a megabyte": [_file(mode=stat.S_IFLNK | 0o777, target=b"t" * (1 << 20))],
    "an owner of 2**40": [_file(uid=2**40)],
    "a handle of a megabyte": [_file(handle=b"h" * (1 << 20))],
    "ten thousand names at once": [_file(name=b"%d" % number) for number in range(10_000)],
}
EXTENTS = {
    "an extent beyond the disk": Extent(100, 0, 1 << 40),
    "an extent of another disk": Extent(100, 7, 0),
    "an extent below zero": Extent(100, 0, -100),
    "an extent of nothing": Extent(0, 0, 0),
    "an extent longer than asked for": Extent(1 << 30, -1, 0),
    "an extent of no kind": Extent(100, -3, 0),
}


class Hostile(FileSystem):
    """The file system."""

    name = "hostile"

    @classmethod
    def claims(cls, device: Device) -> bool:
        return device.read_at(0, len(MARK)) == MARK

    def __init__(self, device: Device) -> None:
        self._device = device
        self.notes = {"label": "\x1b]0;a title\x07"}
        self._deed = device.read_at(0, 512).removeprefix(MARK).rstrip(b"\0").decode()

    def root(self) -> Node:
        return ROOT

    def child(self, directory: bytes, name: bytes) -> Node:
        if self._deed == "say that it cannot be interrupted":
            raise FileError(513, name)
        if name == b"file":
            return _file(size=1000)
        raise FileError(errno.ENOENT, name)

    def children(self, directory: bytes, cursor: bytes | None = None) -> Nodes:
        if self._deed == "be slow where bytes cannot be had":
            try:
                self._device.read_at(FAR, 1)
            except NotGiven:
                time.sleep(1.5)
                return Nodes([_file(name=b"late")], None)
        if self._deed == "be slow over much that it reads":
            for number in range(4):
                self._device.read_at(FAR + (number << 20), 1)
                time.sleep(0.5)
        deed = DEEDS.get(self._deed)
        if deed is not None:
            return Nodes([_file(name=b"done", target=None, size=int(bool(deed())))], None)
        return Nodes(LISTINGS.get(self._deed, [_file(size=1000)]), None)

    def extents(self, file: bytes, offset: int, length: int) -> Iterator[Extent]:
        yield EXTENTS.get(self._deed, Extent(length, -2, 0))

    def read_at(self, file: bytes, offset: int, length: int) -> bytes:
        return b"x" * (length + (self._deed == "more bytes than asked for"))

    def xattrs(self, node: bytes) -> dict[bytes, bytes]:
        return {b"user." + b"x" * 2000: b""}


class HostileImage:
    """A container that cannot be opened."""

    @staticmethod
    def open(access: Any, context: Any, hint: Any) -> None:
        deed = access.read_at(0, 512).removeprefix(MARK).rstrip(b"\0").decode()
        DEEDS[deed]()


def _spin() -> None:
    while True:
        pass


def _eat() -> None:
    kept = []
    while True:
        kept.append(bytes(64 << 20))


def _crash() -> None:
    ctypes.string_at(1)


def _say(data: bytes) -> Callable[[], None]:
    def say() -> None:
        socket.socket(fileno=int(sys.argv[1])).sendall(data)
        time.sleep(60)

    return say


def _raise(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def _may(act: Callable[[], object]) -> Callable[[], bool]:
    """Return whether the sandbox lets us."""

    def attempt() -> bool:
        try:
            act()
        except (OSError, Damaged):
            return False
        return True

    return attempt


def _connect() -> None:
    with socket.socket() as one:
        one.connect(("127.0.0.1", 1))


DEEDS: dict[str, Callable[[], object]] = {
    "spin": _spin,
    "sleep": lambda: time.sleep(600),
    "eat": _eat,
    "crash": _crash,
    "exit": lambda: os._exit(7),
    "be killed": lambda: signal.pthread_kill(threading.get_ident(), signal.SIGKILL),
    "recurse": lambda: DEEDS["recurse"](),
    "raise": _raise(RuntimeError("no parser expects this")),
    "raise a system exit": _raise(SystemExit(3)),
    "say garbage": _say(LENGTH.pack(5) + b"\xc1\xff\xff\xff\xff"),
    "say too much": _say(LENGTH.pack(FRAME_MAX + 1)),
    "say an unknown word": _say(LENGTH.pack(5) + b"\x91\xa3Foo"),
    "say nothing more": lambda: socket.socket(fileno=int(sys.argv[1])).close(),
    "write a file": _may(lambda: Path("/tmp/written by a parser").write_text("x")),
    "make a socket": _may(_connect),
    "start a program": _may(lambda: os.execv("/bin/true", ["true"])),
    "fork": _may(os.fork),
    "kill the gateway": _may(lambda: os.kill(os.getppid(), 0)),
    "become root": _may(lambda: os.setuid(0) if os.getuid() else os.setgid(1)),
    "trace": _may(lambda: ctypes.CDLL(None).ptrace(0, 0, 0, 0) and _raise(OSError())()),
}


if __name__ == "__main__":
    FILE_SYSTEMS["hostile"] = "__main__:Hostile"
    containers.CONTAINERS["hostile"] = "__main__:HostileImage"
    worker.main()

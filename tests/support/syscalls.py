"""Scripts of system calls that say what each call did, to compare one file system with another.

A line is a verb and its words; `as UID[:GID[,GID...]]` before it makes the call in a process of
that user. The outcome of a line is what it found, `ok`, or the name of an errno.
"""

import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

AT_FDCWD = -100
NO_ID = 0xFFFFFFFF
REALTIME_COARSE = 5  # clock_gettime(2): what the kernel takes the times of files from
FLAGS = {"NOREPLACE": 1, "EXCHANGE": 2, "WHITEOUT": 4}
TYPES = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
_libc = ctypes.CDLL(None, use_errno=True)


def refusal(act: Callable[[], object]) -> int | None:
    """Return the errno that `act` fails with."""
    with pytest.raises(OSError) as refused:
        act()
    return refused.value.errno


def assert_same(there: Path, here: Path, text: str) -> None:
    """Run `text` in two directories; fails where a line does different things."""
    assert Script(there).run(text) == Script(here).run(text)


class Script:
    """Runs lines below one directory."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._stamps: dict[str, os.stat_result] = {}
        self._files: dict[str, int] = {}

    def run(self, text: str) -> list[str]:
        """Return each line of `text` with what came of it."""
        lines = [line.split("#")[0].strip() for line in text.splitlines()]
        try:
            return [f"{line}: {self._line(line)}" for line in lines if line]
        finally:
            for descriptor in self._files.values():
                os.close(descriptor)

    def _line(self, line: str) -> str:
        words = line.split()
        if words[0] == "as":
            return _as_user(words[1], lambda: self._call(words[2:]))
        return self._call(words)

    def _call(self, words: list[str]) -> str:
        verb, *rest = words
        try:
            return str(getattr(self, f"_{verb}")(*rest) or "ok")
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def _at(self, name: str) -> str:
        """A long name is written as `x*255`; a slash at the end stays."""
        parts = [part[0] * int(part[2:]) if part[1:2] == "*" else part for part in name.split("/")]
        return f"{self._top}/{'/'.join(parts)}"

    def _open(self, name: str, flags: str, mode: str = "0644") -> None:
        number = 0
        for flag in flags.split("|"):
            number |= getattr(os, f"O_{flag}")
        os.close(os.open(self._at(name), number, int(mode, 8)))

    def _hold(self, name: str, flags: str) -> None:
        """Open, and keep it open for the lines below."""
        number = 0
        for flag in flags.split("|"):
            number |= getattr(os, f"O_{flag}")
        descriptor = os.open(self._at(name), number, 0o644)
        if name in self._files:
            os.close(self._files[name])
        self._files[name] = descriptor

    def _held(self, name: str) -> int:
        if name not in self._files:
            raise OSError(errno.EBADF, "nobody holds it")
        return self._files[name]

    def _fwrite(self, name: str, text: str, offset: str = "0") -> str:
        return str(os.pwrite(self._held(name), text.encode(), int(offset)))

    def _fread(self, name: str) -> str:
        return repr(os.pread(self._held(name), 1000, 0))

    def _ftruncate(self, name: str, size: str) -> None:
        os.ftruncate(self._held(name), int(size))

    def _fchmod(self, name: str, mode: str) -> None:
        os.fchmod(self._held(name), int(mode, 8))

    def _fstat(self, name: str, *fields: str) -> str:
        return _told(os.fstat(self._held(name)), fields)

    def _write(self, name: str, text: str = "content") -> None:
        with open(self._at(name), "w") as file:
            file.write(text)

    def _rewrite(self, name: str, text: str = "more") -> None:
        """Change an existing file in place."""
        descriptor = os.open(self._at(name), os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def _read(self, name: str) -> str:
        with open(self._at(name)) as file:
            return repr(file.read(1000))

    def _list(self, name: str = ".") -> str:
        return " ".join(sorted(os.listdir(self._at(name)))) or "nothing"

    def _mkdir(self, name: str, mode: str = "0755") -> None:
        os.mkdir(self._at(name), int(mode, 8))

    def _rmdir(self, name: str) -> None:
        os.rmdir(self._at(name))

    def _unlink(self, name: str) -> None:
        os.unlink(self._at(name))

    def _symlink(self, target: str, name: str) -> None:
        os.symlink(target if "*" not in target else self._at(target), self._at(name))

    def _readlink(self, name: str) -> str:
        return os.readlink(self._at(name))

    def _link(self, old: str, new: str) -> None:
        os.link(self._at(old), self._at(new))

    def _mknod(self, name: str, kind: str, mode: str = "0644", device: str = "0:0") -> None:
        major, minor = map(int, device.split(":"))
        os.mknod(self._at(name), TYPES[kind] | int(mode, 8), os.makedev(major, minor))

    def _rename(self, old: str, new: str, *flags: str) -> None:
        number = sum(FLAGS[flag] for flag in flags)
        names = os.fsencode(self._at(old)), os.fsencode(self._at(new))
        if _libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], number):
            raise OSError(ctypes.get_errno(), "renameat2")

    def _chmod(self, name: str, mode: str) -> None:
        os.chmod(self._at(name), int(mode, 8))

    def _chown(self, name: str, uid: str, gid: str) -> None:
        os.chown(self._at(name), int(uid), int(gid))

    def _lchown(self, name: str, uid: str, gid: str) -> None:
        os.lchown(self._at(name), int(uid), int(gid))

    def _truncate(self, name: str, size: str) -> None:
        os.truncate(self._at(name), int(size))

    def _utimes(self, name: str, atime_ns: str, mtime_ns: str) -> None:
        os.utime(self._at(name), ns=(int(atime_ns), int(mtime_ns)), follow_symlinks=False)

    def _now(self, name: str) -> None:
        os.utime(self._at(name))

    def _access(self, name: str, mode: str) -> str:
        number = sum(getattr(os, f"{letter}_OK") for letter in mode)
        return "yes" if os.access(self._at(name), number, effective_ids=True) else "no"

    def _stat(self, name: str, *fields: str) -> str:
        return _told(os.lstat(self._at(name)), fields)

    def _setxattr(self, name: str, key: str, value: str) -> None:
        os.setxattr(self._at(name), key, value.encode())

    def _getxattr(self, name: str, key: str) -> str:
        return repr(os.getxattr(self._at(name), key))

    def _removexattr(self, name: str, key: str) -> None:
        os.removexattr(self._at(name), key)

    def _listxattr(self, name: str) -> str:
        return " ".join(sorted(os.listxattr(self._at(name)))) or "nothing"

    def _setfacl(self, name: str, text: str, kind: str = "access") -> None:
        """An ACL as `u::rw-,u:1000:r--,g::---,m::r--,o::---`."""
        os.setxattr(self._at(name), f"system.posix_acl_{kind}", _acl(text))

    def _getfacl(self, name: str, kind: str = "access") -> str:
        return os.getxattr(self._at(name), f"system.posix_acl_{kind}").hex()

    def _stamp(self, *names: str) -> None:
        """Note the times of `names`, and return when the clock of the file system has moved on."""
        for name in names:
            self._stamps[name] = os.lstat(self._at(name))
        start = time.clock_gettime_ns(REALTIME_COARSE)
        while time.clock_gettime_ns(REALTIME_COARSE) == start:
            pass

    def _moved(self, *names: str) -> str:
        """Say which times of `names` are later than when they were noted."""
        told = []
        for name in names:
            before, now = self._stamps[name], os.lstat(self._at(name))
            times = [
                field
                for field in ("mtime", "ctime")
                if getattr(now, f"st_{field}_ns") > getattr(before, f"st_{field}_ns")
            ]
            told.append(f"{name} {'+'.join(times) or 'as before'}")
        return ", ".join(told)


def _told(found: os.stat_result, fields: tuple[str, ...]) -> str:
    told = {
        "type": stat.filemode(found.st_mode)[0],
        "mode": oct(stat.S_IMODE(found.st_mode)),
        "rdev": f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}",
        "times": f"{found.st_atime_ns} {found.st_mtime_ns}",
    }
    return " ".join(str(told.get(field) or getattr(found, f"st_{field}")) for field in fields)


def _acl(text: str) -> bytes:
    tags = {"u": (0x01, 0x02), "g": (0x04, 0x08), "m": (0x10, 0), "o": (0x20, 0)}
    packed = struct.pack("<I", 2)
    for entry in text.split(","):
        tag, name, permissions = entry.split(":")
        bits = sum(bit for letter, bit in zip(permissions, (4, 2, 1), strict=True) if letter != "-")
        own, named = tags[tag]
        packed += struct.pack("<HHI", named if name else own, bits, int(name) if name else NO_ID)
    return packed


def _as_user(who: str, call: Callable[[], str]) -> str:
    """Return what `call` returns in a process of the user `who`."""
    uid, _, groups = who.partition(":")
    gids = [int(gid) for gid in (groups or uid).split(",")]
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(gids)
            os.setresgid(gids[0], gids[0], gids[0])
            os.setresuid(int(uid), int(uid), int(uid))
            os.write(answer, call().encode())
        finally:
            os._exit(0)
    os.close(answer)
    os.waitpid(child, 0)
    with open(answers, "rb") as told:
        return told.read().decode()

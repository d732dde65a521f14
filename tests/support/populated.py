"""A file system with one of everything that a reader may get wrong, made through the kernel."""

import os
import random
import stat
from pathlib import Path

DEPTH = 100  # directories
EARLY_NS, LATE_NS = -(10**18) - 1, 9 * 10**18 + 123_456_789  # 1938 and 2255
USER_ACL = bytes.fromhex(
    "0200000001000700ffffffff02000600e803000004000500ffffffff10000700ffffffff20000100ffffffff"
)  # u::rwx, u:1000:rw-, g::r-x, m::rwx, o::--x


def populate(root: Path, *, files: int = 2000, large: int = 3_000_000) -> None:
    """Fill `root`: `files` names in one directory, one file of `large` bytes, and the rest."""
    chance = random.Random(files)
    _files(root, chance, large)
    _names(root)
    _directories(root, files)
    _links(root)
    _attributes(root, chance)
    _fragmented(root, chance)
    _removed(root)


def _files(root: Path, chance: random.Random, large: int) -> None:
    for size in (0, 1, 511, 512, 513, 4095, 4096, 4097, 70_000):
        (root / f"{size} bytes").write_bytes(chance.randbytes(size))
    with (root / "large").open("wb") as file:
        piece = chance.randbytes(1 << 20)
        for at in range(0, large, len(piece)):
            file.write(at.to_bytes(8, "big") + piece[8 : large - at])
    with (root / "sparse").open("wb") as file:
        for at in (0, 5_000_000, 5_010_000, 1 << 40):
            file.seek(at)
            file.write(b"here")
        file.truncate((1 << 40) + (1 << 30))
    with (root / "allocated").open("wb") as file:  # what was there before must not be seen
        os.posix_fallocate(file.fileno(), 0, 2_000_000)
        file.seek(700_000)
        file.write(b"written in the middle" * 1000)
    for number, (mode, when) in enumerate([(0o4755, EARLY_NS), (0o1700, LATE_NS), (0o000, 1)]):
        path = root / f"mode {mode:o}"
        path.write_bytes(b"#!/bin/sh\n")
        os.chown(path, 1000 + number, 0xFFFF_FFF0)
        path.chmod(mode)
        os.utime(path, ns=(when, when + 1))
    for kind, name in ((stat.S_IFCHR, "character"), (stat.S_IFBLK, "block")):
        os.mknod(root / name, kind | 0o600, os.makedev(259, 200_000))
    os.mkfifo(root / "pipe")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o644)


def _names(root: Path) -> None:
    names = root / "names"
    names.mkdir()
    for name in ("ünïcödé", "日本語の名前", "x" * 255, "-rf", "new\nline", " ", "a:b", "🜁" * 60):
        (names / name).write_text(name)
    for raw in (b"latin \xe9\xff", b"\xff" * 255, b"\x01\x02", b"back\\slash"):
        Path(os.fsdecode(os.fsencode(names) + b"/" + raw)).write_bytes(raw)


def _directories(root: Path, files: int) -> None:
    (root / "empty").mkdir()
    for count in (1, 5, 60, 300, files):
        directory = root / f"directory of {count}"
        directory.mkdir(0o750)
        for number in range(count):
            with open(directory / f"{number:07} {'n' * (number % 90)}", "wb") as file:
                file.write(b"%d" % number)
    for number in range(20):
        (root / f"many directories/{number}/below").mkdir(parents=True)
    deep = root
    for number in range(DEPTH):
        deep = deep / f"d{number}"
        deep.mkdir()
    (deep / "at the bottom").write_text("found")


def _links(root: Path) -> None:
    for length in (1, 50, 59, 60, 200, 490, 900, 1023):
        (root / f"symlink of {length}").symlink_to("t" * length)
    (root / "symlink to nothing").symlink_to(os.fsdecode(b"../\xff\xfe/nowhere"))
    (root / "first name").write_text("one file")
    (root / "links").mkdir()
    for number in range(300):
        os.link(root / "first name", root / f"links/name {number}")


def _attributes(root: Path, chance: random.Random) -> None:
    directory = root / "attributes"
    directory.mkdir()
    for number, sizes in enumerate([(3,), (20, 60), (300,) * 3, (1000, 2000), (100,) * 25]):
        path = directory / f"file {number}"
        path.write_bytes(b"small")
        for at, size in enumerate(sizes):
            os.setxattr(path, f"user.{'n' * number}{at}", chance.randbytes(size))
    path = directory / "trusted, security, acl"
    path.write_bytes(b"")
    os.setxattr(path, "trusted.t", b"\0\1")
    os.setxattr(path, "security.s", b"security")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "system.posix_acl_access", USER_ACL)
    os.setxattr(directory, "system.posix_acl_default", USER_ACL)
    os.symlink("target", directory / "symlink")
    os.setxattr(directory / "symlink", "trusted.on a symlink", b"yes", follow_symlinks=False)
    for name, sizes in {"long values": (60_000, 65_536, 5000), "many": (500,) * 120}.items():
        path = directory / name
        path.write_bytes(b"")
        try:
            for at, size in enumerate(sizes):
                os.setxattr(path, f"user.{name} {at}", chance.randbytes(size))
        except OSError:  # ext4 has room for one block of them
            path.write_bytes(b"no room")


def _fragmented(root: Path, chance: random.Random) -> None:
    first, second = root / "fragmented", root / "fragmented too"
    with first.open("wb") as one, second.open("wb") as other:
        for number in range(400):
            for file in (one, other):
                os.pwrite(file.fileno(), chance.randbytes(4096), number * 8192)
                os.fdatasync(file.fileno()) if number % 8 == 0 else None


def _removed(root: Path) -> None:
    directory = root / "names removed"
    directory.mkdir()
    for number in range(500):
        (directory / f"name {number} to be removed").write_bytes(b"")
    for number in range(0, 500, 3):
        (directory / f"name {number} to be removed").unlink()
    for number in range(100):
        (directory / f"later {number}").write_bytes(b"")

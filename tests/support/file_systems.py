"""Images of file systems for tests, and what the kernel makes of them."""

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec import json

from backgate.fs.volume import HOLE, FileSystem, Node

IMAGES = Path(__file__).parent.parent / "data" / "images"
READ_AT_ONCE = 1 << 20  # bytes
GRAIN = 512  # bytes; holes begin and end at multiples of it
STATUS_BLOCK = 512  # bytes that st_blocks counts
ACLS_AS_STORED = (b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT")  # XFS shows them twice


def unpacked(name: str, directory: Path) -> Path:
    """Unpack the image `name`.raw, holes and all, of the archive of that name."""
    run("tar", "-C", directory, "-xJf", IMAGES / f"{name}.tar.xz")
    return directory / f"{name}.raw"


def run(*command: str | Path) -> None:
    """Run a tool of the system; what it says comes with the failure."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"


@contextmanager
def loop_mounted(image: Path, options: str = "ro,noatime") -> Iterator[Path]:
    """Let the kernel mount `image`; the test is skipped where it may not."""
    if os.geteuid() or not Path("/dev/loop-control").exists():
        pytest.skip("cannot run here: loop mounts: not root, or no loop devices")
    where = image.with_name(image.name + ".mounted")
    where.mkdir(exist_ok=True)
    run("mount", "-o", f"loop,{options}", image, where)
    try:
        yield where
    finally:
        run("umount", where)


@contextmanager
def fuse_mounted(tool: str, image: Path, *options: str) -> Iterator[Path]:
    """Let `tool`, a file system in user space, mount `image`, which it takes as a device only."""
    if os.geteuid() or not Path("/dev/loop-control").exists():
        pytest.skip("cannot run here: loop devices: not root, or there are none")
    where = image.with_name(image.name + ".mounted")
    where.mkdir(exist_ok=True)
    command = ["losetup", "--find", "--show", image]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        run(tool, device, where, *options)
        try:
            yield where
        finally:
            run("umount", where)
    finally:
        run("losetup", "--detach", device)


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody says of one name in a file system."""

    mode: int
    size: int  # bytes
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    nlink: int
    inode: int
    rdev: int
    allocated: int  # bytes
    xattrs: Mapping[bytes, bytes]
    content: bytes  # of a file a digest, of a symlink its target


def as_json(seen: Mapping[bytes, Seen]) -> bytes:
    """Return what was seen in the form in which it lies beside an image."""
    return json.encode([(path, one) for path, one in sorted(seen.items())])


def seen_before(name: str, directory: Path) -> dict[bytes, Seen]:
    """Return what the kernel showed of the image `name` after its recovery, once unpacked."""
    text = (directory / f"{name}.json").read_bytes()
    return dict(json.decode(text, type=list[tuple[bytes, Seen]]))


def seen_by_the_kernel(root: Path) -> dict[bytes, Seen]:
    """Return everything below `root`, and itself, by its path."""
    start = os.fsencode(root)
    answer = {b"": _told_by_the_kernel(start)}
    for directory, directories, files in os.walk(start):
        for name in directories + files:
            path = os.path.join(directory, name)
            answer[path[len(start) + 1 :]] = _told_by_the_kernel(path)
    return answer


def _told_by_the_kernel(path: bytes) -> Seen:
    status = os.lstat(path)
    names: list[bytes] = []
    with suppress(OSError):  # some file systems have none
        names = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
    content = b""
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = _digest(_stored_by_the_kernel(file.fileno(), status.st_size))
    return Seen(
        mode=status.st_mode,
        size=status.st_size,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        atime_ns=status.st_atime_ns,
        ctime_ns=status.st_ctime_ns,
        nlink=status.st_nlink,
        inode=status.st_ino,
        rdev=status.st_rdev,
        allocated=status.st_blocks * STATUS_BLOCK,
        xattrs={
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in names
            if name not in ACLS_AS_STORED
        },
        content=content,
    )


def _stored_by_the_kernel(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            return  # only a hole is left
        stop = os.lseek(descriptor, at, os.SEEK_HOLE)
        while at < stop:
            piece = os.pread(descriptor, min(stop - at, READ_AT_ONCE), at)
            yield at, piece
            at += len(piece)


def seen_by_us(system: FileSystem) -> dict[bytes, Seen]:
    """Return everything in `system` by its path."""
    answer: dict[bytes, Seen] = {}
    left = [(b"", system.root())]
    while left:
        path, node = left.pop()
        answer[path] = _told_by_us(system, node)
        if stat.S_ISDIR(node.mode):
            before = path + b"/" if path else b""
            left += [(before + below.name, below) for below in all_children(system, node)]
    return answer


def all_children(system: FileSystem, directory: Node) -> Iterator[Node]:
    """Give the nodes of all pages of a directory."""
    page = system.children(directory.handle)
    yield from page.nodes
    while page.cursor is not None:
        page = system.children(directory.handle, page.cursor)
        yield from page.nodes


def _told_by_us(system: FileSystem, node: Node) -> Seen:
    assert not node.problem
    content = node.target or b""
    if stat.S_ISREG(node.mode):
        content = _digest(_stored_by_us(system, node))
    assert node.allocated is not None
    return Seen(
        mode=node.mode,
        size=node.size,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        atime_ns=node.atime_ns,
        ctime_ns=node.ctime_ns,
        nlink=node.nlink,
        inode=int.from_bytes(node.inode, "big"),
        rdev=node.rdev,
        allocated=node.allocated,
        xattrs=system.xattrs(node.handle) if node.has_xattrs else {},
        content=content,
    )


def _stored_by_us(system: FileSystem, node: Node) -> Iterator[tuple[int, bytes]]:
    at = 0
    for extent in system.extents(node.handle, 0, node.size):
        stop = at + extent.length
        while extent.disk != HOLE and at < stop:
            piece = system.read_at(node.handle, at, min(stop - at, READ_AT_ONCE))
            assert piece
            start, at = at, at + len(piece)
            yield start, piece + bytes(min(-at % GRAIN, node.size - at))  # a hole, if anything
        at = stop
    assert at == node.size


def _digest(pieces: Iterable[tuple[int, bytes]]) -> bytes:
    """Digest what is not zero, with its place: a hole and stored zeros are the same to a reader."""
    digest = hashlib.sha256()
    for start, piece in pieces:
        for at in range(0, len(piece), GRAIN):
            grain = piece[at : at + GRAIN]
            if grain.strip(b"\0"):
                digest.update(b"%d:" % (start + at))
                digest.update(grain)
    return digest.digest()

"""Images of file systems for tests, and what the kernel makes of them."""

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from backgate.fs.volume import Extent

IMAGES = Path(__file__).parent.parent / "data" / "images"
COPIED_AT_ONCE = 1 << 20  # bytes


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


class BytesDevice:
    """Bytes as a disk, for images that a test bends."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data, self.size = data, len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        return bytes(self.data[offset : offset + max(0, length)])

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield Extent(length, 0, offset)


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody says of one name in a file system."""

    mode: int
    size: int  # bytes; of a directory 0: each reader has its own idea
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    nlink: int
    inode: int | bytes
    rdev: int
    xattrs: Mapping[bytes, bytes]
    content: bytes  # of a file its sha256, of a symlink its target


def seen_by_the_kernel(root: Path) -> dict[bytes, Seen]:
    """Return everything below `root`, and itself, by its path."""
    start = os.fsencode(root)
    answer = {b"": _seen(start)}
    for directory, directories, files in os.walk(start):
        for name in directories + files:
            path = os.path.join(directory, name)
            answer[path[len(start) + 1 :]] = _seen(path)
    return answer


def _seen(path: bytes) -> Seen:
    status = os.lstat(path)
    names = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
    return Seen(
        mode=status.st_mode,
        size=0 if stat.S_ISDIR(status.st_mode) else status.st_size,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        atime_ns=status.st_atime_ns,
        ctime_ns=status.st_ctime_ns,
        nlink=status.st_nlink,
        inode=status.st_ino,
        rdev=status.st_rdev,
        xattrs={name: os.getxattr(path, name, follow_symlinks=False) for name in names},
        content=_content(path, status.st_mode),
    )


def _content(path: bytes, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if not stat.S_ISREG(mode):
        return b""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()

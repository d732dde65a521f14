"""Make the images of file systems that were in use when they were copied (as root, on Linux).

Each is small, with a journal of several transactions that nobody wrote back: directories come and
go, so that blocks are used again and revoked. Beside an XFS lies what the kernel shows of it after
its recovery, and beside a btrfs, where times that the recovery made up are 0; for ext4 there is
another recovery to compare with, that of e2fsck. But neither the kernel nor e2fsck recovers fast
commits whole: beside those lies what was seen before the copy.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from support.file_systems import Seen, as_json, seen_by_the_kernel

IMAGES = {
    # name: (size, mkfs, mount options)
    "ext4-crashed": ("16M", "mkfs.ext4 -J size=4", ""),
    "ext4-crashed-checksums-of-transactions": (
        "16M",
        "mkfs.ext4 -O ^metadata_csum,^64bit -J size=4",
        "data=writeback,journal_async_commit",
    ),
    "ext4-crashed-data-journal": ("8M", "mkfs.ext4 -b 1024 -J size=1", "data=journal"),
    "ext4-crashed-fast-commits": ("16M", "mkfs.ext4 -O fast_commit -J size=4", "noatime"),
    "ext3-crashed": ("8M", "mkfs.ext3 -b 1024 -J size=1", "data=journal"),
    "xfs-crashed": ("300M", "mkfs.xfs", ""),
    "xfs-crashed-small-blocks": (
        "300M",
        "mkfs.xfs --unsupported -l size=6m -b size=1024 -n size=8192 -m rmapbt=1,bigtime=0",
        "logbsize=256k",
    ),
    "btrfs-crashed": ("120M", "mkfs.btrfs", "noatime,commit=300"),
    "btrfs-crashed-small-nodes": (
        "16M",
        "mkfs.btrfs --mixed -n 4096 --csum xxhash -O ^no-holes",
        "noatime,commit=300,max_inline=1000",
    ),
    "btrfs-crashed-compressed": (
        "300M",
        "mkfs.btrfs -n 65536 --csum sha256",
        "noatime,commit=300,compress-force=zstd",
    ),
}
JOURNAL_MARK = b"\xc0\x3b\x39\x98"  # blocks that begin with it are escaped in a journal


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def commit(root: Path) -> None:
    with (root / "mark").open("wb") as file:
        file.write(b"mark")
        os.fsync(file.fileno())


def use(root: Path, rounds: int) -> None:
    for _ in range(rounds):  # so that a small log begins again, more than once
        commit(root)
    for number in range(300):  # so that names have an index, and an inode's extents a tree
        (root / f"one of many names {number}").symlink_to("target" * (1 + number % 40))
    with (root / "fragmented").open("wb") as file:
        for number in range(60):
            os.pwrite(file.fileno(), b"written", number * 20_000)
            os.fdatasync(file.fileno())
    os.setxattr(root / "fragmented", "user.long", b"value" * 500)
    commit(root)
    for step in range(6):
        directory = root / f"directory {step}"
        directory.mkdir()
        for number in range(30):
            text = f"step {step} file {number}\n" * (1 + number * 20)
            (directory / f"file {number} of this step").write_text(text)
        if step:
            shutil.rmtree(root / f"directory {step - 1}")
        commit(root)
    (root / "escaped").write_bytes(JOURNAL_MARK * 1024)
    commit(root)


def commit_all(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def use_fast(root: Path) -> None:
    """Change what is kept in fast commits, with one after each few changes."""
    for name in ("changed", "cut", "replaced", "removed", "moved", "linked"):
        (root / name).write_bytes(name.encode() * 5000)
    os.setxattr(root / "changed", "user.short", b"kept")
    (root / "old/empty").mkdir(parents=True)
    os.sync()
    commit(root)  # the first after an attribute is never fast
    with (root / "fragmented").open("wb") as file:
        for number in range(60):
            os.pwrite(file.fileno(), b"written", number * 20_000)
        os.posix_fallocate(file.fileno(), 2_000_000, 100_000)
    commit_all(root)
    with (root / "changed").open("r+b") as file:
        os.pwrite(file.fileno(), b"in the middle", 10_000)
        os.pwrite(file.fileno(), b"at the end", 100_000)
    os.truncate(root / "cut", 777)
    commit_all(root)
    (root / "new/below").mkdir(parents=True)
    (root / "new/below/file").write_bytes(b"in a new directory" * 500)
    (root / "old/empty").rmdir()
    (root / "moved").rename(root / "new/moved")
    os.link(root / "linked", root / "old/linked too")
    commit_all(root)
    (root / "new/moved").rename(root / "replaced")
    (root / "removed").unlink()
    commit_all(root)
    (root / "has the number of another").write_bytes(b"again" * 3000)
    (root / "changed").chmod(0o600)
    commit_all(root)


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def prepare_logged(root: Path) -> None:
    """Make what is in the last transaction of a btrfs."""
    for name in ("sub", "other"):
        run("btrfs", "-q", "subvolume", "create", root / name)
        for number in range(40):
            (root / name / f"file {number}").write_bytes(b"%d of %d " % (number, number) * 700)
    run("btrfs", "-q", "subvolume", "snapshot", root / "sub", root / "snapshot")
    (root / "directory/below").mkdir(parents=True)
    for number in range(30):
        (root / f"directory/{number} {'x' * (number % 90)}").write_bytes(b"old")
    for name in ("changed", "cut", "grown", "punched", "inline", "attributes", "untouched"):
        (root / name).write_bytes(name.encode() * (3 if name == "inline" else 9000))
    os.setxattr(root / "attributes", "user.gone", b"gone")
    os.setxattr(root / "attributes", "user.kept", b"kept")
    os.link(root / "changed", root / "directory/linked")
    os.link(root / "untouched", root / "directory/too")
    (root / "link").symlink_to("target")
    run("sync", "-f", root)


def use_logged(root: Path) -> None:
    """Change much of it, and synchronize that alone: what a log has, and what it leaves out."""
    with (root / "changed").open("r+b") as file:
        os.pwrite(file.fileno(), b"in the middle", 10_000)
        os.pwrite(file.fileno(), b"far behind", 300_000)
    os.truncate(root / "cut", 777)
    with (root / "grown").open("ab") as file:
        file.write(b"more" * 3000)
        os.posix_fallocate(file.fileno(), 200_000, 100_000)
    run("fallocate", "-p", "-o", "8192", "-l", "20000", root / "punched")
    (root / "inline").write_bytes(b"no longer so short" * 500)
    os.removexattr(root / "attributes", "user.gone")
    os.setxattr(root / "attributes", "user.new", b"new" * 100)
    (root / "untouched").chmod(0o600)
    for name in ("changed", "cut", "grown", "punched", "inline", "attributes"):
        fsync(root / name)
    for number in range(0, 30, 3):
        (root / f"directory/{number} {'x' * (number % 90)}").unlink()
    (root / "directory/too").unlink()
    (root / "directory/below/new").mkdir()
    (root / "directory/below/new/file").write_bytes(b"in a new directory" * 500)
    fsync(root / "directory")
    fsync(root / "directory/below/new/file")
    (root / "sub/file 3").rename(root / "sub/renamed")
    (root / "sub/file 4").rename(root / "sub/file 5")
    fsync(root / "sub/renamed")
    os.link(root / "sub/file 6", root / "sub/another name")
    fsync(root / "sub/file 6")
    with (root / "snapshot/file 7").open("r+b") as file:
        os.pwrite(file.fileno(), b"only here", 3000)
        os.fsync(file.fileno())
    for number in range(200):
        (root / f"other/new {number}").write_bytes(b"%d" % number * 40)
        os.setxattr(root / f"other/new {number}", "user.number", b"%d" % number)
    fsync(root / "other")
    (root / "never synchronized").write_bytes(b"lost")


def make(name: str, target: Path) -> None:
    size, mkfs, options = IMAGES[name]
    with tempfile.TemporaryDirectory() as scratch:
        image, root = Path(scratch, "image"), Path(scratch, "root")
        root.mkdir()
        run("truncate", "-s", size, image)
        run(*mkfs.split(), "-q", *(["-F"] if "ext" in name else []), image)
        run("mount", "-o", f"loop,{options}", image, root)
        try:
            if name.startswith("btrfs"):
                prepare_logged(root)
                use_logged(root)
            elif "fast" in name:
                use_fast(root)
                Path(scratch, f"{name}.json").write_bytes(as_json(seen_by_the_kernel(root)))
            else:
                use(root, 8080 if "small" in name else 0)
            run("cp", "--sparse=always", image, Path(scratch, f"{name}.raw"))
        finally:
            run("umount", root)
        if name.startswith(("xfs", "btrfs")):
            expect(Path(scratch, f"{name}.raw"), root)
        files = [file.name for file in Path(scratch).glob(f"{name}.*")]
        run("tar", "-C", scratch, "-cJSf", target / f"{name}.tar.xz", *files)


def expect(image: Path, root: Path) -> None:
    recovered, begun = image.with_suffix(".recovered"), time.time_ns()
    run("cp", "--sparse=always", image, recovered)
    run("mount", "-o", "loop", recovered, root)  # which replays its log
    run("umount", root)
    run("mount", "-o", f"loop,ro,noatime{',norecovery' * ('xfs' in image.name)}", recovered, root)
    try:
        seen = {path: without_made_up(one, begun) for path, one in seen_by_the_kernel(root).items()}
    finally:
        run("umount", root)
    recovered.unlink()
    image.with_suffix(".json").write_bytes(as_json(seen))


def without_made_up(one: Seen, begun: int) -> Seen:
    """Return what was seen with 0 for times that are later than the copy."""
    times = {"mtime_ns": one.mtime_ns, "ctime_ns": one.ctime_ns}
    return replace(one, **{name: 0 for name, ns in times.items() if ns > begun})


if __name__ == "__main__":
    for name in sys.argv[1:] or IMAGES:
        make(name, Path(__file__).parent)

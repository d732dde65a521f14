"""Make the images of file systems that were in use when they were copied (as root, on Linux).

Each is small, with a journal of several transactions that nobody wrote back: directories come and
go, so that blocks are used again and revoked. Tests bring their own expectations.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = {
    # name: (size, mkfs, mount options)
    "ext4-crashed": ("16M", "mkfs.ext4 -J size=4", ""),
    "ext4-crashed-checksums-of-transactions": (
        "16M",
        "mkfs.ext4 -O ^metadata_csum,^64bit -J size=4",
        "data=writeback,journal_async_commit",
    ),
    "ext4-crashed-data-journal": ("8M", "mkfs.ext4 -b 1024 -J size=1", "data=journal"),
    "ext4-crashed-fast-commits": ("16M", "mkfs.ext4 -O fast_commit", ""),
    "ext3-crashed": ("8M", "mkfs.ext3 -b 1024 -J size=1", "data=journal"),
}
JOURNAL_MARK = b"\xc0\x3b\x39\x98"  # blocks that begin with it are escaped in a journal


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def commit(root: Path) -> None:
    with (root / "mark").open("wb") as file:
        file.write(b"mark")
        os.fsync(file.fileno())


def use(root: Path) -> None:
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


def make(name: str, target: Path) -> None:
    size, mkfs, options = IMAGES[name]
    with tempfile.TemporaryDirectory() as scratch:
        image, root = Path(scratch, "image"), Path(scratch, "root")
        root.mkdir()
        run("truncate", "-s", size, image)
        run(*mkfs.split(), "-q", "-F", image)
        run("mount", "-o", f"loop,{options}", image, root)
        try:
            use(root)
            run("cp", "--sparse=always", image, Path(scratch, f"{name}.raw"))
        finally:
            run("umount", root)
        run("tar", "-C", scratch, "-cJSf", target / f"{name}.tar.xz", f"{name}.raw")


if __name__ == "__main__":
    for name in sys.argv[1:] or IMAGES:
        make(name, Path(__file__).parent)

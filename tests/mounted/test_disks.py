"""The files on a disk image, through a real mount: as the kernel shows them; and without root."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.disks import sectors, unpacked_disks
from support.file_systems import Seen, fuse_mounted, loop_mounted, run, seen_by_the_kernel
from support.gateway import COMMAND, Gateway
from support.populated import populate

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

NOBODY = "65534"
MAKE = {
    "ext4": ("mkfs.ext4 -q -b 4096", "1G", "partitions/0-ext4"),
    "xfs": ("mkfs.xfs -q", "1G", "partitions/0-xfs"),
    "btrfs": ("mkfs.btrfs -q", "1G", "partitions/0-btrfs"),
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    store = tmp_path / "objects"
    store.mkdir()
    made = Gateway(tmp_path / "home", {"url": f"file://{store}"})
    yield made
    made.close()


def comparable(all_of: dict[bytes, Seen]) -> dict[bytes, Seen]:
    """Leave out numbers of inodes, which are each mount's own."""
    return {path: replace(one, inode=0) for path, one in all_of.items()}


def links(all_of: dict[bytes, Seen]) -> set[frozenset[bytes]]:
    """Return which paths are one file."""
    groups: dict[int, set[bytes]] = {}
    for path, one in all_of.items():
        if one.nlink > 1 and one.mode & 0o170000 != 0o040000:
            groups.setdefault(one.inode, set()).add(path)
    return {frozenset(group) for group in groups.values()}


@pytest.mark.parametrize("kind", MAKE)
def test_a_walk_through_the_mount_is_as_the_kernel_shows_the_image(
    kind: str, gateway: Gateway, tmp_path: Path
) -> None:
    compare(kind, gateway, tmp_path, files=500, large=5_000_000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", MAKE)
def test_a_walk_over_20_000_files_is_as_the_kernel_shows_the_image(
    kind: str, gateway: Gateway, tmp_path: Path
) -> None:
    compare(kind, gateway, tmp_path, files=20_000, large=300_000_000)


def compare(kind: str, gateway: Gateway, tmp_path: Path, *, files: int, large: int) -> None:
    """Show an image with so many files through a mount and through the kernel's loop."""
    command, size, place = MAKE[kind]
    image = tmp_path / "objects/vm.img"
    run("truncate", "-s", size, image)
    run(*command.split(), image)
    with loop_mounted(image, "rw") as root:
        populate(root, files=files, large=large)
        (root / "sparse").unlink()  # FUSE cannot tell holes: all of the terabyte would be read
    with loop_mounted(image) as root:
        expected = seen_by_the_kernel(root)
    gateway.mount("--view", "backups")

    seen = seen_by_the_kernel(gateway.mountpoint / "image/vm" / place)

    assert seen.keys() == expected.keys()
    told, wanted = comparable(seen), comparable(expected)
    assert {path: told[path] for path in told if told[path] != wanted[path]} == {}
    assert links(seen) == links(expected)
    gateway.umount()


def test_an_extended_attribute_that_is_too_long_is_listed_and_refused_as_linux_does(
    gateway: Gateway, tmp_path: Path
) -> None:
    image, named = tmp_path / "objects/vm.img", "長" * 90
    run("truncate", "-s", "20M", image)
    run("mkntfs", "-q", "-F", "-Q", image)
    with fuse_mounted("ntfs-3g", image, "-o", "streams_interface=windows") as root:
        (root / "file").write_bytes(b"x")
        Path(f"{root}/file:short").write_bytes(b"s" * 100)
        Path(f"{root}/file:long").write_bytes(b"l" * 100_000)
        Path(f"{root}/file:{named}").write_bytes(b"n" * 100)
    gateway.mount("--view", "backups")
    file = gateway.mountpoint / "image/vm/partitions/0-ntfs/file"

    assert sorted(os.listxattr(file)) == ["user.long", "user.short", f"user.{named}"]
    assert os.getxattr(file, "user.short") == b"s" * 100
    with pytest.raises(OSError, match="Argument list too long"):
        os.getxattr(file, "user.long")
    with pytest.raises(OSError, match="out of range"):
        os.getxattr(file, f"user.{named}")
    run("cp", "-a", file, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"x"
    gateway.umount()
    said = gateway.log.read_text()
    assert said.count("'user.long' is longer than Linux") == 1
    assert said.count("is longer than Linux") == 2


def test_an_ordinary_user_reads_a_disk_and_the_files_on_it(home: Path) -> None:
    (home / "objects").mkdir()
    gateway = Gateway(home / "own", {"url": f"file://{home}/objects"})
    (home / "from").mkdir()
    (home / "from/file").write_bytes(os.urandom(300_000))
    image = home / "objects/vm.img"
    run("truncate", "-s", "20M", image)
    run("mkfs.ext4", "-q", "-d", home / "from", image)
    run("chown", "-R", NOBODY, gateway.home)

    for name, expected in (
        ("partitions/0-ext4/file", home / "from/file"),
        ("disk.raw", image),
    ):
        done = subprocess.run(
            ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", COMMAND, "cat",
             f"store:backups/image/vm/{name}"],
            env=gateway.environment, capture_output=True, check=False, cwd="/",
        )  # fmt: skip
        assert done.stdout == expected.read_bytes(), done.stderr.decode()


def test_what_lies_on_disks_is_listed(gateway: Gateway, tmp_path: Path) -> None:
    image = tmp_path / "objects/vm.img"
    run("truncate", "-s", "20M", image)
    run("mkfs.ext4", "-q", "-L", "root", image)

    (told,) = gateway.json("backups", "store", "--disks")  # type: ignore[misc]
    text = gateway.run("backups", "store", "--disks").stdout

    assert told["disks"] == [
        {"name": "vm", "size": 20 << 20, "problem": "", "notes": {"kind": "raw"}}
    ]
    (volume,) = told["volumes"]
    assert (volume["path"], volume["file_system"]) == ("partitions/0-ext4", "ext4")
    assert volume["notes"] == {"format": "ext4", "label": "root", "state": "clean"}
    assert "partitions/0-ext4  20.0 MiB  ext4; format ext4; label root; state clean" in text


def test_passphrases_of_the_configuration_open_what_is_encrypted(
    gateway: Gateway, tmp_path: Path
) -> None:
    unpacked_disks("luks.tar.xz", tmp_path / "objects")
    place = "store:backups/image/luks-xts-of-1/partitions/"
    (name,) = gateway.run("ls", place).stdout.split()
    assert "needs a passphrase" in gateway.run("cat", f"{place}{name}/README.txt").stdout
    secret = tmp_path / "passphrases"
    secret.write_text("a wrong one\n\none pass\n")
    secret.chmod(0o600)
    gateway.configure({"url": f"file://{tmp_path}/objects", "secrets": {"image": f"file:{secret}"}})

    (name,) = gateway.run("ls", place).stdout.split()
    done = subprocess.run(
        [COMMAND, "cat", f"{place}{name}/volume.raw"],
        env=gateway.environment,
        capture_output=True,
        check=True,
    )

    assert done.stdout.startswith(sectors("xts-of-1", 0, 48))

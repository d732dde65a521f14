"""Xen Orchestra holds to the contract of backup formats: with files on an ext4 in a VM's disk."""

import os
import subprocess
from pathlib import Path

import pytest
from contracts.format_contract import FormatContract
from support.xen_orchestra import KEY, T1, Writer

from backgate.fs.formats.xen_orchestra.format import XenOrchestraFormat

SIZE = 48 << 20  # bytes of the disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts the disk to fill it"),
]


class TestXenOrchestra(FormatContract):
    format_class = XenOrchestraFormat
    secret = KEY
    below = b"disks/xvda-root/partitions/0-ext4/tree"

    def back_up(self, directory: Path, store: Path) -> None:
        image, place = store.with_name("disk"), store.with_name("place")
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(SIZE)
        writer = Writer(store, algorithm="chacha20-poly1305")
        run("mkfs.ext4", "-q", image)
        run("mount", "-o", "loop", image, place)
        try:
            run("cp", "-a", directory, place / "tree")
        finally:
            run("umount", place)
        writer.back_up(T1, {"root": image.read_bytes()})

    def spoil(self, store: Path) -> None:
        image = next(store.glob("xo-vm-backups/*/vdis/*/*/data/*.vhd"))
        data = (image / "blocks" / "0" / "0").read_bytes()
        (image / "blocks" / "0" / "0").write_bytes(data[:-1])


def run(*arguments: object) -> None:
    """Run a command that has to succeed."""
    subprocess.run(list(map(str, arguments)), check=True, stdin=subprocess.DEVNULL)

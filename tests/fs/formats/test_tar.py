"""The tar format against GNU tar: every header format and compression, and what was spoilt."""

import os
from pathlib import Path

from contracts.format_contract import FormatContract
from support.trees import run

from backgate.fs.formats.tar.format import TarFormat


class TarContract(FormatContract):
    """GNU tar with `options` writes `archive`."""

    format_class = TarFormat
    archive = "backup.tar"
    options: tuple[str, ...] = ("--format=gnu",)

    def back_up(self, directory: Path, store: Path) -> None:
        run("tar", "-C", directory, "--sparse", *self.options, "-cf", store / self.archive, ".")

    def spoil(self, store: Path) -> None:
        path = store / self.archive
        os.truncate(path, path.stat().st_size * 2 // 3)


class TestPax(TarContract):
    options = ("--format=pax",)


class TestGzip(TarContract):
    archive = "backup.tar.gz"
    options = ("--format=pax", "-z")


class TestBzip2(TarContract):
    archive = "backup.tbz2"
    options = ("--format=pax", "-j")


class TestXz(TarContract):
    archive = "backup.tar.xz"
    options = ("--format=pax", "-I", "xz -0")


class TestZstd(TarContract):
    archive = "backup.TAR.ZST"
    options = ("--format=pax", "-I", "zstd")

"""Disk images hold to the contract of all formats: the files on a btrfs inside of a qcow2."""

import shutil
from pathlib import Path

import pytest
from contracts.format_contract import FormatContract
from support.file_systems import loop_mounted
from support.trees import make_odd_tree, run

from backgate.fs.formats.image.format import ImageFormat

pytestmark = [pytest.mark.slow, pytest.mark.mounted]

CORRUPT_AT = 79  # where a qcow2 says that its writer found it corrupt


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tree and a store with an image of it, made once."""
    top = tmp_path_factory.mktemp("contract")
    tree = make_odd_tree(top / "tree")
    store = top / "store"
    store.mkdir()
    (store / "unrelated").write_bytes(b"no backup")
    raw = top / "raw"
    run("truncate", "-s", "200M", raw)
    run("mkfs.btrfs", "-q", raw)
    with loop_mounted(raw, "rw") as root:
        run("cp", "-a", f"{tree}/.", root)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, store / "vm.qcow2")
    return tree, store


class TestImage(FormatContract):
    format_class = ImageFormat
    below = b"partitions/0-btrfs"

    @pytest.fixture
    def tree_path(self, written: tuple[Path, Path]) -> Path:
        return written[0]

    @pytest.fixture
    def store(self, written: tuple[Path, Path], tmp_path: Path) -> Path:
        return Path(shutil.copytree(written[1], tmp_path / "store"))

    def spoil(self, store: Path) -> None:
        with (store / "vm.qcow2").open("r+b") as file:
            file.seek(CORRUPT_AT)
            file.write(b"\x02")

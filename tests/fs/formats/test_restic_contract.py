"""restic holds to the contract of all formats."""

import shutil
from pathlib import Path

import pytest
from contracts.format_contract import FormatContract
from support.restic import PASSWORD, Restic
from support.trees import make_odd_tree

from backgate.fs.formats.restic.format import ResticFormat

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tree and a store with its backup, made once: restic takes its time."""
    top = tmp_path_factory.mktemp("contract")
    tree = make_odd_tree(top / "tree")
    store = top / "store"
    store.mkdir()
    (store / "unrelated").write_bytes(b"no backup")
    Restic(store / "web").back_up(tree)
    return tree, store


class TestRestic(FormatContract):
    format_class = ResticFormat
    secret = PASSWORD.encode()

    @pytest.fixture
    def tree_path(self, written: tuple[Path, Path]) -> Path:
        return written[0]

    @pytest.fixture
    def store(self, written: tuple[Path, Path], tmp_path: Path) -> Path:
        return Path(shutil.copytree(written[1], tmp_path / "store", symlinks=True))

    def spoil(self, store: Path) -> None:
        for path in (store / "web" / "data").rglob("*"):
            if path.is_file():
                path.unlink()

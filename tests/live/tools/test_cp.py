"""cp -a onto the path and back."""

from pathlib import Path

import pytest
from support.compare import differences
from support.gateway import Gateway
from support.tools import make_plain_tree
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


def test_cp_copies_onto_the_path_and_back(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")

    run("cp", "-a", tree, mounted.repository / "copy")
    mounted.umount()
    mounted.mount()
    run("cp", "-a", mounted.repository / "copy", tmp_path / "out")

    assert differences(tree, mounted.repository / "copy") == []
    assert differences(tree, tmp_path / "out") == []
    mounted.umount()

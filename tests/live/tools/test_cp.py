"""cp -a onto the path and back: a repository that is a mirror keeps all of it."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.compare import differences, of_files
from support.gateway import Gateway
from support.tools import make_plain_tree
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


@pytest.fixture
def settings() -> Mapping[str, object]:
    return {"kind": "mirror"}


def test_cp_copies_onto_the_path_and_back(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    os.setxattr(tree / "private", "user.note", b"kept")

    run("cp", "-a", tree, mounted.repository / "copy")
    mounted.umount()
    mounted.mount()
    run("cp", "-a", mounted.repository / "copy", tmp_path / "out")

    assert differences(tree, mounted.repository / "copy") == []
    assert differences(tree, tmp_path / "out") == []
    assert os.getxattr(tmp_path / "out" / "private", "user.note") == b"kept"
    mounted.mount_elsewhere()
    assert of_files(differences(tree, mounted.repository / "copy"), tree) == []
    assert os.getxattr(mounted.repository / "copy" / "private", "user.note") == b"kept"
    mounted.umount()

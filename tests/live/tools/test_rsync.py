"""rsync to the path: three runs with changes between, and a fourth that finds nothing to do."""

from pathlib import Path

import pytest
from support.compare import differences
from support.gateway import Gateway
from support.tools import change_tree, make_plain_tree
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


@pytest.mark.parametrize("way", ["well", "faulty"])
def test_rsync_mirrors_onto_the_path(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    target = mounted.repository / "mirror"

    for number in range(3):
        change_tree(tree, number)
        run("rsync", "-a", "--delete", f"{tree}/", target)
        assert differences(tree, target) == []
    mounted.umount()
    mounted.mount()

    assert run("rsync", "-ai", "--delete", "--checksum", f"{tree}/", target) == ""
    mounted.umount()


def test_rsync_changes_files_in_place(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    target = mounted.repository / "mirror"

    for number in range(2):
        change_tree(tree, number)
        run("rsync", "-a", "--delete", "--inplace", "--no-whole-file", f"{tree}/", target)
        assert differences(tree, target) == []
    mounted.umount()

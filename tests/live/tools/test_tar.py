"""tar with its archive on the path: created, appended to, shrunk, extracted, and level by level."""

from pathlib import Path

import pytest
from support.compare import differences
from support.gateway import Gateway
from support.tools import change_tree, make_plain_tree
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


def test_tar_creates_appends_deletes_and_extracts(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    archive = mounted.repository / "backup.tar"
    (tmp_path / "out").mkdir()

    run("tar", "-C", tree, "-cf", archive, "--exclude=./large", ".")
    run("tar", "-C", tree, "-rf", archive, "./large")
    (tree / "folder 1" / "01.bin").unlink()
    run("tar", "-f", archive, "--delete", "./folder 1/01.bin")
    mounted.mount_elsewhere()
    run("tar", "-C", tmp_path / "out", "-xpf", archive)

    assert differences(tree, tmp_path / "out", times=False) == []
    mounted.umount()


def test_tar_extracts_onto_the_path(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    run("tar", "-C", tree, "-cf", tmp_path / "backup.tar", "--format=posix", ".")
    target = mounted.repository / "out"
    target.mkdir()

    run("tar", "-C", target, "-xpf", tmp_path / "backup.tar")

    assert differences(tree, target) == []
    mounted.umount()


def test_tar_keeps_levels_with_its_state_on_the_path(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    state, out = mounted.repository / "state.snar", tmp_path / "out"
    out.mkdir()

    for number in range(3):
        change_tree(tree, number)
        archive = mounted.repository / f"{number}.tar"
        run("tar", "-C", tree, "-cf", archive, f"--listed-incremental={state}", ".")
    mounted.mount_elsewhere()
    for number in range(3):
        archive = mounted.repository / f"{number}.tar"
        run("tar", "-C", out, "-xpf", archive, "--listed-incremental=/dev/null")

    assert differences(tree, out, times=False) == []
    mounted.umount()

"""rsync to the path, with all that a file system keeps: three runs with changes between."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.compare import differences, of_files
from support.gateway import Gateway
from support.tools import change_tree, make_plain_tree
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


@pytest.fixture
def settings() -> Mapping[str, object]:
    return {"kind": "mirror"}


def make_tree(top: Path) -> Path:
    """A tree with hard links, extended attributes, access lists, a fifo and other owners."""
    make_plain_tree(top)
    os.link(top / "large", top / "folder 0" / "large again")
    os.mkfifo(top / "fifo", 0o640)
    os.chown(top / "private", 1234, 4321)
    os.setxattr(top / "private", "user.note", b"kept")
    os.setxattr(top / "folder 1", "user.note", b"of a folder")
    run("setfacl", "-m", "u:1234:rw", top / "private")
    run("setfacl", "-d", "-m", "g:4321:rx", top / "folder 1")
    for name in ("fifo", "folder 0"):  # rsync leaves times alone that are the same second
        os.utime(top / name, ns=(1_700_000_000_000_000_000,) * 2)
    return top


def kept(top: Path) -> str:
    """Return the extended attributes and access lists of all that is below `top`."""
    lists = run("getfacl", "-R", "-n", "-p", "--absolute-names", top)
    attributes = run("getfattr", "-R", "-h", "-d", "-m", "user", "--absolute-names", top)
    return (lists + attributes).replace(str(top), "")


def unlinked(found: list[str]) -> list[str]:
    """Leave out that names of one file are files of their own: a link is a copy."""
    return [line for line in found if not line.startswith("hard links")]


@pytest.mark.parametrize("way", ["well", "faulty"])
def test_rsync_mirrors_onto_the_path(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    target = mounted.repository / "mirror"

    for number in range(3):
        change_tree(tree, number)
        # Without -1 rsync takes two times within one second for the same.
        run("rsync", "-aHAX", "--modify-window=-1", "--delete", f"{tree}/", target)
        assert unlinked(differences(tree, target)) == []
    mounted.umount()
    mounted.mount()

    assert unlinked(differences(tree, target)) == []
    assert sorted(kept(target).splitlines()) == sorted(kept(tree).splitlines())
    assert run("rsync", "-aAXi", "--delete", "--checksum", f"{tree}/", target) == ""
    mounted.mount_elsewhere()
    assert of_files(unlinked(differences(tree, target)), tree) == []
    assert kept(target / "private") == kept(tree / "private")
    mounted.umount()


def test_rsync_changes_files_in_place(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    target = mounted.repository / "mirror"

    for number in range(2):
        change_tree(tree, number)
        run(
            "rsync",
            "-a",
            "--modify-window=-1",
            "--delete",
            "--inplace",
            "--no-whole-file",
            f"{tree}/",
            target,
        )
        assert differences(tree, target) == []
    mounted.umount()

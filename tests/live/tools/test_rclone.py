"""rclone with the path as its target: files in parallel under temporary names, changed, deleted."""

import os
import re
from pathlib import Path

import pytest
from support.compare import differences, of_files
from support.gateway import Gateway
from support.tools import change_tree, make_plain_tree, tool
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


def lead_to_a_folder(link: Path) -> None:
    """Keep a link from files: rclone gives a file that it leads to the mode of the link."""
    time_ns = link.lstat().st_mtime_ns
    link.unlink()
    link.symlink_to("folder 0")
    os.utime(link, ns=(time_ns, time_ns), follow_symlinks=False)


@pytest.mark.parametrize("way", ["well", "faulty"])
def test_rclone_syncs_onto_the_path(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    target = mounted.repository / "synced"
    (tmp_path / "rclone.conf").touch()
    options = ["--metadata", "--links", "--transfers=8"]
    options += [f"--config={tmp_path / 'rclone.conf'}"]

    def rclone(*arguments: object) -> str:
        return run(tool("rclone"), *arguments, *options)

    for number in range(2):
        change_tree(tree, number)
        lead_to_a_folder(tree / "link")
        rclone("sync", tree, target, "--create-empty-src-dirs", "--checksum")
        rclone("check", "--download", tree, target)
        assert of_files(differences(tree, target), tree) == []
    mounted.mount_elsewhere()

    # By size and time, which is what tells it of a change where nobody asks for checksums.
    rclone("sync", tree, target, f"--log-file={tmp_path / 'log'}", "-v")
    assert not re.search("Copied|Deleted", (tmp_path / "log").read_text())
    mounted.umount()

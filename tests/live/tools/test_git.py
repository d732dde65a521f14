"""git with a repository on the path: cloned, committed to, packed, checked, cloned again."""

from pathlib import Path

import pytest
from support.compare import differences
from support.gateway import Gateway
from support.tools import change_tree, make_plain_tree
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


def test_git_lives_on_the_path(mounted: Gateway, tmp_path: Path) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[user]\nname = n\nemail = e@example.org\n[gc]\nautoDetach = false\n")

    def git(directory: Path, *arguments: object) -> str:
        return run("git", "-C", directory, *arguments, GIT_CONFIG_GLOBAL=str(config), HOME="/")

    source = make_plain_tree(tmp_path / "source")
    git(source, "init", "-q")
    git(source, "add", ".")
    git(source, "commit", "-qm", "first")
    work = mounted.repository / "work"

    git(tmp_path, "clone", "-q", "--no-hardlinks", source, work)
    change_tree(work, 0)
    git(work, "add", "-A")
    git(work, "commit", "-qm", "second")
    git(work, "gc", "-q")
    mounted.umount()
    mounted.mount()
    assert git(work, "status", "--short") == ""
    mounted.mount_elsewhere()
    git(work, "fsck", "--full", "--strict")
    git(tmp_path, "clone", "-q", work, tmp_path / "out")

    # Modes that were changed after close stay with the gateway that changed them.
    assert git(work, "-c", "core.fileMode=false", "status", "--short") == ""
    assert [
        line
        for line in differences(work, tmp_path / "out", times=False)
        if not line.startswith(".git")  # where it was cloned from, and what is packed
        and ": mode" not in line
    ] == []
    mounted.umount()

"""borg on the path, unmodified: from an encrypted repository to one file taken out again."""

import os
import subprocess
from pathlib import Path

import pytest
from support.compare import differences
from support.gateway import Gateway
from support.tools import change_tree, make_plain_tree, tool
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


class Borg:
    """borg with a repository on the path and a home of its own."""

    def __init__(self, home: Path, repository: Path) -> None:
        self.repository = repository
        self.environment = {
            "BORG_BASE_DIR": str(home),
            "BORG_PASSPHRASE": "correct horse",
            "BORG_REPO": str(repository),
            "BORG_EXIT_CODES": "modern",
        }

    def __call__(self, *arguments: object) -> str:
        return run(tool("borg"), *arguments, **self.environment)

    def lists(self) -> list[str]:
        return self("list", "--short").split()


@pytest.mark.parametrize("way", ["well", "faulty"])
def test_borg_lives_on_the_path(
    mounted: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    borg = Borg(tmp_path / "home", mounted.repository / "borg")

    borg("init", "--encryption=repokey-blake2")
    for number in range(3):
        change_tree(tree, number)
        borg("create", "--compression=lz4", f"::{number}", tree)
    borg("check", "--verify-data")
    assert borg.lists() == ["0", "1", "2"]
    borg("prune", "--keep-last=1")
    borg("compact", "--threshold=0")
    mounted.umount()
    mounted.mount()
    borg("check", "--verify-data")
    assert borg.lists() == ["2"]
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    borg("extract", "::2")

    assert differences(tree, out / tree.relative_to("/")) == []
    mounted.umount()


def test_a_lock_of_borg_keeps_another_borg_out(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    borg = Borg(tmp_path / "home", mounted.repository / "borg")
    borg("init", "--encryption=none")
    locked = [tool("borg"), "with-lock", "::", "cat"]
    with subprocess.Popen(
        locked,
        env=os.environ | borg.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin and holder.stdout
        holder.stdin.write(b"x")
        holder.stdin.flush()
        assert holder.stdout.read(1) == b"x"  # the command runs, so the lock is held

        with pytest.raises(AssertionError, match="Failed to create/acquire the lock"):
            borg("create", "--lock-wait=0", "::refused", tree)
        holder.stdin.close()
        assert holder.wait() == 0

    borg("create", "--lock-wait=0", "::allowed", tree)
    assert borg.lists() == ["allowed"]
    mounted.umount()

"""borg on the path, unmodified: from an encrypted repository to one file taken out again."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.compare import differences
from support.gateway import Gateway, gateway
from support.tools import change_tree, make_plain_tree, tool
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]

REFUSED = "Failed to create/acquire the lock"


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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the repository's exclusive lock."""
        with subprocess.Popen(
            [tool("borg"), "with-lock", "::", "cat"],
            env=os.environ | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdin and holder.stdout
            holder.stdin.write(b"x")
            holder.stdin.flush()
            assert holder.stdout.read(1) == b"x"  # the command runs, so the lock is held
            yield
            holder.stdin.close()
            assert holder.wait() == 0

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
    mounted.mount_elsewhere()
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

    with borg.locked(), pytest.raises(AssertionError, match=REFUSED):
        borg("create", "--lock-wait=0", "::refused", tree)

    borg("create", "--lock-wait=0", "::allowed", tree)
    assert borg.lists() == ["allowed"]
    mounted.umount()


@pytest.mark.parametrize("settings", [{"writers": "shared", "max_age": "0 s"}])
def test_a_lock_of_borg_keeps_a_borg_on_another_gateway_out(
    mounted: Gateway, seaweedfs_server: SeaweedFS, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "tree") / "folder 0"
    with gateway(tmp_path / "other", {}, seaweedfs_server.environment()) as elsewhere:
        elsewhere.config.write_text(mounted.config.read_text())
        elsewhere.mount()
        borg = Borg(tmp_path / "home", mounted.repository / "borg")
        other = Borg(tmp_path / "other home", elsewhere.repository / "borg")
        borg("init", "--encryption=repokey-blake2")

        with ThreadPoolExecutor(1) as pool:
            with borg.locked():
                with pytest.raises(AssertionError, match=REFUSED):
                    other("--lock-wait=0", "create", "::refused", tree)
                waiting = pool.submit(other, "--lock-wait=100", "create", "::waited", tree)
            waiting.result()
        borg("create", "::again", tree)

        borg("check", "--verify-data")
        assert other.lists() == ["waited", "again"]
        elsewhere.umount()
    mounted.umount()

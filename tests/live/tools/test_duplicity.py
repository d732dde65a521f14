"""duplicity on the path, unmodified: encrypted volumes, an increment, and both restored."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.compare import differences
from support.gateway import Gateway
from support.tools import change_tree, make_plain_tree, tool
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


@pytest.mark.parametrize("way", ["well", "very faulty"])
def test_duplicity_lives_on_the_path(mounted: Gateway, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "tree")
    before = tmp_path / "before"
    url = f"file://{mounted.repository}/duplicity"
    archive = f"--archive-dir={tmp_path / 'archive'}"
    (tmp_path / "gnupg").mkdir(mode=0o700)
    environment = {
        "PASSPHRASE": "correct horse",
        "GNUPGHOME": str(tmp_path / "gnupg"),
        "TMPDIR": str(tmp_path),
    }

    def duplicity(*arguments: object) -> str:
        return run(tool("duplicity"), *arguments, archive, "--volsize=2", **environment)

    duplicity("full", tree, url)
    (manifest,) = (mounted.repository / "duplicity").glob("duplicity-full.*.manifest.gpg")
    begun = datetime.strptime(manifest.name.split(".")[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    run("cp", "-a", tree, before)
    change_tree(tree, 0)
    duplicity("incremental", tree, url)
    duplicity("verify", "--compare-data", url, tree)
    shutil.rmtree(tmp_path / "archive")  # what it needs is in the store alone
    mounted.mount_elsewhere()
    duplicity("restore", url, tmp_path / "now")
    duplicity("restore", f"--time={begun.isoformat()}", url, tmp_path / "first")

    # It keeps whole seconds, and no time of a link.
    assert differences(tree, tmp_path / "now", times=False) == []
    assert differences(before, tmp_path / "first", times=False) == []
    mounted.umount()

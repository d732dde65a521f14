"""restic on the path, unmodified; and what it wrote there is a repository to its own S3 backend."""

from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.compare import differences
from support.gateway import Gateway
from support.restic import PASSWORD, Restic
from support.tools import change_tree, make_plain_tree
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]


@pytest.mark.parametrize("way", ["well", "faulty"])
def test_restic_lives_on_the_path(
    mounted: Gateway, seaweedfs_server: SeaweedFS, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "tree")

    restic = Restic(mounted.repository / "web")
    for number in range(3):
        change_tree(tree, number)
        restic.back_up(tree)
    restic("check", "--read-data")
    assert len(restic.objects("snapshots")) == 3
    restic("forget", "--keep-last=1", "--prune", "--max-unused=0")
    assert len(restic.objects("snapshots")) == 1
    mounted.mount_elsewhere()
    restic("check", "--read-data")
    restic("restore", "latest", "--target", tmp_path / "out")

    assert differences(tree, tmp_path / "out") == []
    mounted.umount()
    bucket = mounted.config.read_text().split('"s3://')[1].split('"')[0]
    native = f"s3:{seaweedfs_server.endpoint_url}/{bucket}/web"
    environment = seaweedfs_server.environment() | {"RESTIC_PASSWORD": PASSWORD}
    run("restic", "-r", native, "--no-cache", "check", "--read-data", **environment)

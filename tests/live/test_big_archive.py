"""A .tar.gz of 2 GB: its last file, a second time, does not cost the way from the start."""

import os
import subprocess
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.gateway import gateway
from support.trees import run

pytestmark = [pytest.mark.soak, pytest.mark.live, pytest.mark.mounted, pytest.mark.timeout(3600)]

MIB = 1 << 20  # bytes
FETCHED_MAX = 16 * MIB  # bytes for one small file near the end
MEMORY_MAX = 250 * MIB  # bytes resident, the promise


def test_the_last_file_of_a_big_tar_gz_is_quick_the_second_time(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    bucket = seaweedfs_server.bucket("big-archive")
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
    }
    source = tmp_path / "source"
    source.mkdir()
    for number in range(205):
        (source / f"{number:03}").write_bytes(os.urandom(9 * MIB) + bytes(MIB))
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount()
        archive = made.repository / "big.tar.gz"
        tar = f"tar -C {source} --sort=name -cf - . | gzip -1 > {archive}"
        subprocess.run(["bash", "-o", "pipefail", "-c", tar], check=True)
        first = (made.backups / "tar" / "big" / "204").read_bytes()
        assert made.resident() < MEMORY_MAX
        made.umount()
        run("rm", "-r", next((made.home / "cache").rglob("blocks")))
        made.mount()

        second = (made.backups / "tar" / "big" / "204").read_bytes()

        (status,) = made.statuses()
        assert first == second == (source / "204").read_bytes()
        assert status["bytes_in"] < FETCHED_MAX
        made.umount()

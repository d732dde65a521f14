"""A file much longer than the spool: what it takes on disk stays within the budget."""

import hashlib
import os
import random
import threading
import time
import uuid
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.gateway import gateway

pytestmark = [pytest.mark.soak, pytest.mark.live, pytest.mark.mounted, pytest.mark.timeout(3600)]

MIB = 1 << 20  # bytes
BUDGET = 256 * MIB  # bytes
LENGTH = 4096 * MIB  # bytes
BLOCK = 512  # bytes, the unit of st_blocks
JOURNAL = 16 * MIB  # bytes that the journal may take beside it


def taken(folder: Path) -> int:
    """Return the bytes that the files of the spool take on disk."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * BLOCK
        except FileNotFoundError:
            continue
    return total


@pytest.mark.parametrize("name", ["long", "long.tmp"])
def test_a_file_of_4_gib_takes_no_more_of_the_disk_than_its_budget(
    name: str, tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    bucket = seaweedfs_server.bucket(f"peak-{uuid.uuid4().hex}")
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
        "spool": "256 MiB",
    }
    blocks = [random.randbytes(MIB) for _ in range(7)]
    peak, is_over = 0, threading.Event()
    with gateway(tmp_path, table, seaweedfs_server.environment()) as made:
        made.mount()

        def watch() -> None:
            nonlocal peak
            while not is_over.wait(0.02):
                peak = max(peak, taken(tmp_path / "state"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun, digest = time.monotonic(), hashlib.sha256()
        with (made.repository / name).open("wb", buffering=0) as file:
            for number in range(LENGTH // MIB):
                block = blocks[number % len(blocks)]
                file.write(block)
                digest.update(block)
        os.rename(made.repository / name, made.repository / "stored")
        seconds = time.monotonic() - begun
        is_over.set()
        watcher.join()

        print(f"{LENGTH // MIB} MiB in {seconds:.0f} s, at most {peak / MIB:.0f} MiB on disk")
        assert peak <= BUDGET + JOURNAL
        body = seaweedfs_server.client().get_object(Bucket=bucket, Key="stored")["Body"]
        stored = hashlib.sha256()
        while piece := body.read(MIB):
            stored.update(piece)
        assert stored.digest() == digest.digest()
        made.umount()
        hidden = seaweedfs_server.client().list_objects_v2(Bucket=bucket, Prefix=".backgate/")
        assert not [one for one in hidden.get("Contents", ()) if one["Size"]]
    seaweedfs_server.empty(bucket)

"""kill -9 of the gateway while tools write: the acknowledged is whole, the rest not there."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.gateway import Gateway, gateway
from support.trees import make_odd_tree, run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow, pytest.mark.timeout(900)]

MIB = 1 << 20  # bytes
PASSWORD = "correct horse"


@pytest.fixture
def bucket(seaweedfs_server: SeaweedFS, request: pytest.FixtureRequest) -> str:
    return seaweedfs_server.bucket(f"crash{abs(hash(request.node.name)) % 10**12}")


@pytest.fixture
def mounted(tmp_path: Path, seaweedfs_server: SeaweedFS, bucket: str) -> Iterator[Gateway]:
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount()
        yield made


def stored(server: SeaweedFS, bucket: str) -> dict[str, int]:
    """Return all keys of the bucket with their sizes."""
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}


def content(server: SeaweedFS, bucket: str, key: str) -> bytes:
    body: bytes = server.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def test_a_crash_in_a_long_write_loses_nothing_acknowledged(
    mounted: Gateway, seaweedfs_server: SeaweedFS, bucket: str
) -> None:
    closed = {f"closed-{number}": os.urandom(number * MIB) for number in range(1, 4)}
    piece = os.urandom(4 * MIB)

    for name, data in closed.items():
        (mounted.repository / name).write_bytes(data)
    (mounted.repository / "renamed.tmp").write_bytes(b"published by rename")
    (mounted.repository / "renamed.tmp").rename(mounted.repository / "renamed")
    synced = (mounted.repository / "synced").open("wb", buffering=0)
    synced.write(b"on the gateway's disk")
    os.fsync(synced.fileno())
    long = (mounted.repository / "long").open("wb", buffering=0)
    for _ in range(128):  # half of the 1 GiB that it would become
        long.write(piece)
    mounted.kill()
    for file in (synced, long):
        with pytest.raises(OSError, match=r"not connected|aborted"):
            file.write(b"more")
        with suppress(OSError):
            file.close()
    mounted.mount()

    mounted.run("spool", "wait", "store")
    keys = stored(seaweedfs_server, bucket)
    for name, data in closed.items():
        assert content(seaweedfs_server, bucket, name) == data
    assert content(seaweedfs_server, bucket, "renamed") == b"published by rename"
    assert content(seaweedfs_server, bucket, "synced") == b"on the gateway's disk"
    assert "long" not in keys
    assert "long" in mounted.run("spool", "list", "store").stdout
    assert not (mounted.repository / "long").exists()
    assert not any(
        seaweedfs_server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    )
    mounted.umount()


def test_a_crash_in_a_restic_backup_leaves_a_sound_repository(
    mounted: Gateway, seaweedfs_server: SeaweedFS, bucket: str, tmp_path: Path
) -> None:
    environment = os.environ | {"RESTIC_PASSWORD": PASSWORD, "RESTIC_PROGRESS_FPS": "20"}
    restic = ["restic", "-r", str(mounted.repository / "web"), "--no-cache"]
    odd = make_odd_tree(tmp_path / "odd")
    big = tmp_path / "big"
    big.write_bytes(os.urandom(400 * MIB))
    run(*restic, "init", RESTIC_PASSWORD=PASSWORD)
    run(*restic, "backup", odd, RESTIC_PASSWORD=PASSWORD)

    with subprocess.Popen(
        [*restic, "backup", "--json", str(big)], env=environment, stdout=subprocess.PIPE, text=True
    ) as backup:
        assert backup.stdout is not None
        for line in backup.stdout:
            if json.loads(line).get("percent_done", 0) > 0.3:
                break
        mounted.kill()
        backup.kill()
    mounted.mount()
    mounted.run("spool", "wait", "store")

    packs = [key for key in stored(seaweedfs_server, bucket) if key.startswith("web/data/")]
    packs = [key for key in packs if not key.endswith("/")]
    assert packs
    for key in packs:
        name = key.rsplit("/", 1)[1]
        assert hashlib.sha256(content(seaweedfs_server, bucket, key)).hexdigest() == name
    run(*restic, "unlock", RESTIC_PASSWORD=PASSWORD)
    run(*restic, "check", "--read-data", RESTIC_PASSWORD=PASSWORD)
    run(*restic, "backup", big, RESTIC_PASSWORD=PASSWORD)
    mounted.umount()
    native = f"s3:{seaweedfs_server.endpoint_url}/{bucket}/web"
    run("restic", "-r", native, "--no-cache", "check", "--read-data",
        RESTIC_PASSWORD=PASSWORD, **seaweedfs_server.environment())  # fmt: skip

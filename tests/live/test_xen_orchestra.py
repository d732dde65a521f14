"""VM backups on a real server, through a real mount: also when nothing may be listed."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.seaweedfs import SeaweedFS
from support.gateway import Gateway, anew, gateway
from support.xen_orchestra import (
    BLOCK,
    KEY,
    SAMPLES,
    T1,
    T2,
    T3,
    Writer,
    changed,
    disk,
    manifest,
    unpack_sample,
    unseal,
)
from support.xen_orchestra_merge import merge

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]

TIMES = {"2026-08-01T01-00-00Z": "t1", "2026-08-02T01-00-00Z": "t2", "2026-08-03T01-00-00Z": "t3"}
DELTAS = "[!f]*"  # all samples but the full one
TIME = "20260801T010000Z"
LISTING = "^GET .*(max-keys|list-type)"


@pytest.fixture
def proxy(seaweedfs_server: SeaweedFS) -> Iterator[FaultProxy]:
    with fault_proxy(seaweedfs_server.endpoint_url) as made:
        yield made


@pytest.fixture
def xo(tmp_path: Path, seaweedfs_server: SeaweedFS, proxy: FaultProxy) -> Iterator[Gateway]:
    """A gateway in front of the samples, of one disk more, and of a proxy that can refuse."""
    store = tmp_path / "store"
    for name in SAMPLES:
        unpack_sample(name, store)
    unseal(store / "encrypted", store / "directories")
    Writer(store / "odd", filter="gzip", name="odd vm").back_up(TIME, {"root": disk(5 << 20, "o")})
    bucket = seaweedfs_server.bucket("xen-orchestra")
    seaweedfs_server.empty(bucket)
    client = seaweedfs_server.client()
    for path in store.rglob("*"):
        if path.is_file():
            key = str(path.relative_to(store))
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    client.close()
    key = tmp_path / "key"
    key.write_bytes(KEY + b"\n")
    key.chmod(0o600)
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": proxy.url,
        "patience": "3 s",
        "writers": "shared",
        "secrets": {"xen-orchestra": f"file:{key}"},
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        yield made


def require_right(mounted: Path, samples: str, disks: int) -> None:
    """Compare each disk, and each file on it, of some samples with the manifest."""
    compared = 0
    for place in sorted(mounted.glob(f"{samples}/lab-vm/20*/disks/*")):
        time, letter = TIMES[place.parts[-3]], place.name[-1]
        assert sha256(place / "disk.raw") == manifest()["disks"][f"{letter}-{time}"]["sha256"]
        files = place / "partitions" / ("1-rootfs" if letter == "a" else "0-ext4")
        for name, expected in manifest()["snapshots"][time][letter]["files"].items():
            path = files / name.lstrip("/")
            if "symlink" in expected:
                assert os.readlink(path) == expected["symlink"]
            else:
                assert sha256(path) == expected["sha256"]
        compared += 1
    assert compared == disks


def require_others_right(mounted: Path) -> None:
    """Compare what is in an archive with the manifest, and files of metadata with what they are."""
    (archived,) = mounted.glob("full/lab-vm/20*/disks/*/disk.raw")
    expected = manifest()["disks"]["b-t1"]
    with archived.open("rb") as file:
        assert hashlib.sha256(file.read(expected["size"])).hexdigest() == expected["sha256"]
    files = {path.read_bytes() for path in mounted.glob("meta/xo-*/*/20*/data*")}
    assert files == {
        b'{"acls":[],"users":[{"email":"admin@lab"}]}',
        b"encrypted-xo-config",
        b'<?xml version="1.0"?><database/>',
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_disk_and_file_of_the_samples_is_right_also_without_listing(
    xo: Gateway, proxy: FaultProxy
) -> None:
    xo.mount("--read-only")
    require_right(xo.backups / "xen-orchestra", DELTAS, disks=19)
    require_others_right(xo.backups / "xen-orchestra")
    xo.umount()
    blocks = next(xo.home.glob("cache/**/blocks"))
    blocks.rename(blocks.with_name("old-blocks"))
    proxy.rules += [
        Rule(match=LISTING, status=403, code="AccessDenied"),
        Rule(match=r"^HEAD .*\.merge\.json", status=403, code="AccessDenied"),  # for absent
    ]

    xo.mount("--read-only")
    require_right(xo.backups / "xen-orchestra", DELTAS, disks=19)
    require_others_right(xo.backups / "xen-orchestra")
    xo.umount()


def test_a_block_that_is_damaged_is_an_error_with_a_reason_and_harms_no_other(
    xo: Gateway, seaweedfs_server: SeaweedFS
) -> None:
    client = seaweedfs_server.client()
    bucket = "xen-orchestra"
    found = client.list_objects_v2(Bucket=bucket, Prefix="odd/")["Contents"]
    key = next(one["Key"] for one in found if one["Key"].endswith("/blocks/0/1"))
    whole = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    client.put_object(Bucket=bucket, Key=key, Body=whole[:-20] + bytes(20))
    client.close()

    xo.mount("--read-only")
    raw = xo.backups / "xen-orchestra" / "odd" / "odd vm" / "latest" / "disks" / "xvda-root"
    with (raw / "disk.raw").open("rb", buffering=0) as file:
        assert file.read(4096) == disk(5 << 20, "o")[:4096]
        file.seek(3 << 20)
        with pytest.raises(OSError) as caught:
            file.read(4096)
        assert caught.value.errno == errno.EIO
        file.seek(4 << 20)
        assert file.read(4096) == disk(5 << 20, "o")[4 << 20 : (4 << 20) + 4096]
    xo.umount()
    assert "blocks/0/1" in xo.log.read_text()


@pytest.mark.soak
@pytest.mark.parametrize("refuses", [False, True])
def test_no_byte_of_another_backup_is_read_while_images_are_merged_in_the_store(
    refuses: bool, tmp_path: Path, seaweedfs_server: SeaweedFS, proxy: FaultProxy
) -> None:
    bucket = seaweedfs_server.bucket("xo-merging")
    seaweedfs_server.empty(bucket)
    writer = Writer(tmp_path / "store", filter="gzip")
    contents = {T1: disk(3 * BLOCK, "one")}
    contents[T2] = changed(contents[T1], 1, "two")
    contents[T3] = changed(contents[T2], 2, "three")
    for at, content in contents.items():
        writer.back_up(at, {"root": content})
    stored: dict[str, bytes] = {}
    synchronize(seaweedfs_server, bucket, writer.store, stored)
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": proxy.url,
        "writers": "shared",
        "block_cache": "0",
        "max_age": "1 h" if refuses else "0 s",
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount("--view", "backups", "--read-only")
        places = sorted((made.mountpoint / "xen-orchestra" / "web").glob("20*"))
        raws = [place / "disks" / "xvda-root" / "disk.raw" for place in places]
        with ExitStack() as stack:
            files = [stack.enter_context(raw.open("rb")) for raw in raws]
            assert [anew(file) for file in files] == list(contents.values())
            if refuses:
                proxy.rules.append(Rule(match=LISTING, status=403, code="AccessDenied"))
            for at in (T1, T2):
                (writer.store / writer.top / f"{at}.json").unlink()
            for step in merge(writer, "root", [T1, T2, T3]):
                synchronize(seaweedfs_server, bucket, writer.store, stored)
                for file, content in zip(files, contents.values(), strict=True):
                    try:
                        assert anew(file) == content, step
                    except OSError:
                        assert content != contents[T3], step
        made.umount()
    assert "its backup was deleted" in made.log.read_text()


def synchronize(server: SeaweedFS, bucket: str, store: Path, stored: dict[str, bytes]) -> None:
    """Make the bucket what the folder `store` is; `stored` is what it was."""
    client = server.client()
    files = [path for path in store.rglob("*") if path.is_file()]
    now = {str(path.relative_to(store)): path.read_bytes() for path in files}
    for key, data in now.items():
        if stored.get(key) != data:
            client.put_object(Bucket=bucket, Key=key, Body=data)
    for key in stored.keys() - now.keys():
        client.delete_object(Bucket=bucket, Key=key)
    client.close()
    stored.clear()
    stored.update(now)

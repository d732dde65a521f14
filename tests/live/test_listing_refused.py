"""LIST answers 403 for good: what is known is there, and what is not is an error, never nothing."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.seaweedfs import SeaweedFS
from support.gateway import Gateway, gateway
from support.trees import run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]

PATIENCE = 3.0  # seconds
SLOW = 60.0  # seconds until the store answers anything


@pytest.fixture
def proxy(seaweedfs_server: SeaweedFS) -> Iterator[FaultProxy]:
    with fault_proxy(seaweedfs_server.endpoint_url) as made:
        yield made


@pytest.fixture
def known(tmp_path: Path, seaweedfs_server: SeaweedFS, proxy: FaultProxy) -> Iterator[Gateway]:
    """A repository with a backup that the cache knows; others wrote since, and LIST is refused."""
    bucket = seaweedfs_server.bucket("list-refused")
    seaweedfs_server.empty(bucket)
    source = tmp_path / "etc"
    source.mkdir()
    (source / "hosts").write_text("127.0.0.1 localhost\n")
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": proxy.url,
        "patience": f"{PATIENCE:.0f} s",
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount()
        run("tar", "-cf", made.repository / "etc.tar", "-C", tmp_path, "etc")
        made.umount()
        made.run("cache", "refresh", "store")
        client = seaweedfs_server.client()
        client.put_object(Bucket=bucket, Key="unlisted/one", Body=b"1" * 10_000)
        client.put_object(Bucket=bucket, Key="unlisted/two", Body=b"2" * 10_000)
        client.close()
        proxy.rules.append(Rule(match="^GET .*max-keys", status=403, code="AccessDenied"))
        yield made


def test_a_known_backup_mounts_and_reads_and_what_is_written_appears(known: Gateway) -> None:
    known.mount()

    restored = known.backups / "tar" / "etc" / "etc" / "hosts"
    assert restored.read_text() == "127.0.0.1 localhost\n"
    (known.repository / "new").write_bytes(b"written")
    assert sorted(os.listdir(known.repository)) == ["etc.tar", "new"]
    assert (known.repository / "new").read_bytes() == b"written"
    known.umount()


def test_a_directory_that_was_never_listed_waits_and_is_an_error_with_a_reason(
    known: Gateway, proxy: FaultProxy
) -> None:
    known.run("cache", "rebuild", "store", check=False)
    known.mount()
    proxy.rules[:] = [
        Rule(match="prefix=unlisted", status=403, code="AccessDenied"),
        Rule(match=r"^GET [^?]*\?(?!delimiter).*max-keys", status=403, code="AccessDenied"),
    ]
    assert sorted(os.listdir(known.repository)) == ["etc.tar", "unlisted"]
    begun = time.monotonic()

    with pytest.raises(OSError) as refused:
        os.listdir(known.repository / "unlisted")

    assert refused.value.errno == errno.EIO
    assert time.monotonic() - begun >= PATIENCE - 0.5
    assert "'unlisted/' cannot be listed" in known.log.read_text()
    assert (known.repository / "unlisted" / "one").read_bytes() == b"1" * 10_000
    assert "listing fails" in known.run("status", "store").stdout
    known.umount()


def test_a_known_repository_is_up_at_once_however_slow_its_store(
    known: Gateway, proxy: FaultProxy
) -> None:
    proxy.rules[:] = [Rule(delay=SLOW)]
    begun = time.monotonic()

    known.mount()
    listed = os.listdir(known.repository)

    assert time.monotonic() - begun < SLOW / 2
    assert listed == ["etc.tar"]
    proxy.rules.clear()
    known.umount()

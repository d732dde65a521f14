"""What happens under the metadata cache: each a state that is said, and never a wrong answer."""

import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from servers.faultproxy import Rule, fault_proxy
from servers.seaweedfs import SeaweedFS
from support.gateway import Gateway, gateway

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

PATIENCE = 3.0  # seconds
WITHIN = 120.0  # seconds; what is waited for comes much earlier
DISK = 20 * 1024 * 1024  # bytes under the index
DIRECTORIES, FILES = 20, 50
LIBFAKETIME = "/usr/$LIB/faketime/libfaketime.so.1"  # the loader knows the architecture
Names = dict[str, list[str]]


def fill(store: Path, tree: str) -> Names:
    """Put files as somebody else does, and return the names of each directory."""
    for directory in range(DIRECTORIES):
        (store / tree / f"d{directory:02}").mkdir(parents=True)
        for number in range(FILES):
            (store / tree / f"d{directory:02}" / f"f{number:02}").write_bytes(b"x")
    return found(store / tree)


def found(top: Path) -> Names:
    return {name: sorted(os.listdir(top / name)) for name in sorted(os.listdir(top))}


def wait_for(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def metadata(made: Gateway) -> dict[str, Any]:
    (one,) = made.statuses()
    told: dict[str, Any] = one["metadata"]
    return told


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway over the directory `tmp_path / "store"`, not mounted yet."""
    (tmp_path / "store").mkdir()
    table = {"url": f"file://{tmp_path / 'store'}", "patience": f"{PATIENCE:.0f} s"}
    with gateway(tmp_path / "gateway", table) as made:
        yield made


def test_an_index_overwritten_with_random_bytes_is_made_anew(
    local: Gateway, tmp_path: Path
) -> None:
    names = fill(tmp_path / "store", "tree")
    local.mount()
    wait_for(lambda: metadata(local)["is_complete"])
    index = next((local.home / "cache").rglob("index-*.sqlite"))

    for path in (index, index.with_name(index.name + "-wal")):
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
    (local.repository / "new").write_bytes(b"written")

    assert found(local.repository / "tree") == names
    assert sorted(os.listdir(local.repository)) == ["new", "tree"]
    assert "index-" in local.log.read_text()
    wait_for(lambda: metadata(local)["is_complete"])
    assert metadata(local)["objects"] == DIRECTORIES * FILES + 1
    local.umount()


def test_a_full_disk_under_the_index_is_said_and_makes_no_directory_short(
    local: Gateway, tmp_path: Path
) -> None:
    names = fill(tmp_path / "store", "tree")
    cache = local.home / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", cache], check=True)
    try:
        local.mount()
        wait_for(lambda: metadata(local)["is_complete"])
        filler = cache / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(bytes(4096))
        for number in range(10_000):
            (tmp_path / "store" / f"{number:05}").touch()

        (local.repository / "own").write_bytes(b"written")
        local.run("cache", "refresh", "store", check=False)  # as far as the room kept back goes
        state = local.run("status", "store").stdout

        assert "no room for the index" in state
        for directory in ("d00", "d01"):  # whole, or an error: as what was known had to give way
            with suppress(OSError):
                assert sorted(os.listdir(local.repository / "tree" / directory)) == names[directory]
        assert (local.repository / "own").read_bytes() == b"written"
        filler.unlink()
        local.run("cache", "refresh", "store")
        assert len(os.listdir(local.repository)) == 10_002
        assert found(local.repository / "tree") == names
        local.umount()
    finally:
        local.close()
        subprocess.run(["umount", "-l", cache], check=True)


def test_a_clock_that_jumps_makes_nothing_newer_than_it_is(local: Gateway, tmp_path: Path) -> None:
    store, clock = tmp_path / "store", tmp_path / "clock"
    fill(store, "tree")
    clock.write_text("+0")
    local.configure({"url": f"file://{store}", "writers": "shared", "max_age": "1 h"})
    local.environment |= {
        "LD_PRELOAD": LIBFAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    local.mount()
    wait_for(lambda: metadata(local)["is_complete"])
    top, others = local.repository / "tree", store / "tree"
    before = found(top)

    for offset in ("+400d", "-4000d"):
        name = unseen(others / "d00", top / "d00")
        clock.write_text(offset)
        wait_for(lambda name=name: name in os.listdir(top / "d00"))  # type: ignore[misc]

    assert {**found(top), "d00": before["d00"]} == before
    assert (metadata(local)["age"] or 0.0) >= 0.0
    local.umount()


def unseen(others: Path, shown: Path) -> str:
    """Return a name that somebody else put and that is not shown yet: what is known is fresh.

    A pass that a leap of the clock began may still be under way, and see it at once.
    """
    while True:
        name = f"put-{len(os.listdir(others))}"
        (others / name).write_bytes(b"x")
        if name not in os.listdir(shown):
            return name


@pytest.mark.live
def test_a_bucket_that_vanishes_and_returns_is_said_and_costs_nothing(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    bucket = seaweedfs_server.bucket("vanishing")
    seaweedfs_server.empty(bucket)
    put(seaweedfs_server, bucket)
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
        "patience": f"{PATIENCE:.0f} s",
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount()
        wait_for(lambda: metadata(made)["is_complete"])

        remove(seaweedfs_server, bucket)
        failed = made.run("cache", "refresh", "store", check=False)
        with pytest.raises(OSError, match="Input/output error"):
            (made.repository / "known" / "a").read_bytes()
        with pytest.raises(OSError, match="Input/output error"):
            (made.repository / "new").write_bytes(b"written meanwhile")
        listed = sorted(os.listdir(made.repository / "known"))
        state = made.run("status", "store").stdout
        seaweedfs_server.bucket(bucket)
        put(seaweedfs_server, bucket)

        assert failed.returncode == 1
        assert "no such bucket" in failed.stderr
        assert listed == ["a", "b"]
        assert "bucket" in state
        made.run("cache", "refresh", "store")
        made.run("spool", "retry", "store")
        assert (made.repository / "known" / "a").read_bytes() == b"x" * 10_000
        assert (made.repository / "new").read_bytes() == b"written meanwhile"
        assert sorted(os.listdir(made.repository)) == ["known", "new", "unknown"]
        assert "waiting" not in made.run("status", "store").stdout
        made.umount()


def put(server: SeaweedFS, bucket: str) -> None:
    client = server.client()
    for key in ("known/a", "known/b", "unknown/c"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * 10_000)
    client.close()


def remove(server: SeaweedFS, bucket: str) -> None:
    """Delete a bucket with all that is in it, which its owner's S3 calls would refuse."""
    url = f"{server.filer_url}/buckets/{bucket}?recursive=true"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()


@pytest.mark.live
def test_credentials_that_expire_are_waited_for_and_said(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    bucket = seaweedfs_server.bucket("expiring")
    keys = tmp_path / "keys"
    keys.touch(0o600)
    with fault_proxy(seaweedfs_server.endpoint_url) as proxy:
        table = {
            "url": f"s3://{bucket}",
            "provider": "seaweedfs",
            "endpoint_url": proxy.url,
            "credentials": f"file:{keys}",
        }
        write_keys(keys, seaweedfs_server.access_key, seaweedfs_server.secret_key)
        with gateway(tmp_path / "gateway", table) as made:
            made.mount()
            (made.repository / "file").write_bytes(b"x" * 10_000)
            write_keys(keys, "gone", "gone")
            proxy.rules.append(Rule(status=403, code="ExpiredToken", times=1))
            read: list[bytes] = []
            path = made.repository / "file"

            thread = threading.Thread(target=lambda: read.append(path.read_bytes()))
            thread.start()
            waiting = f"credentials expired, waiting for new ones in file:{keys}"
            wait_for(lambda: waiting in made.run("status", "store").stdout)
            write_keys(keys, seaweedfs_server.access_key, seaweedfs_server.secret_key)
            thread.join(WITHIN)

            assert read == [b"x" * 10_000]
            after = made.run("status", "store").stdout
            assert "for which nobody waits now: credentials expired" in after
            assert waiting not in after.splitlines()[1]
            made.umount()


def write_keys(path: Path, access: str, secret: str) -> None:
    path.write_text(f'access_key = "{access}"\nsecret_key = "{secret}"\n')

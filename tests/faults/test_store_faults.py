"""A store that goes away, refuses, fills up or talks nonsense while a tool writes to the mount."""

import errno
import hashlib
import os
import pty
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import IO, Any

import pytest
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.seaweedfs import SeaweedFS
from support.gateway import COMMAND, Gateway, gateway

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow, pytest.mark.timeout(900)]

MIB = 1 << 20  # bytes
OUTAGE = 20.0  # seconds, real ones
WITHIN = 120.0  # seconds


@dataclass
class Written:
    """A gateway in front of a store that fails on demand."""

    made: Gateway
    proxy: FaultProxy
    client: Any
    bucket: str
    table: dict[str, object] = field(default_factory=dict)

    @property
    def top(self) -> Path:
        return self.made.repository

    def content(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return [one["Key"] for one in found]

    def pending(self) -> list[tuple[str, str]]:
        listed = self.made.json("spool", "list", "store")
        assert isinstance(listed, list)
        return [(one["key"], one["state"]) for one in listed]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < until, self.made.log.read_text()[-4000:]
            time.sleep(0.1)


@contextmanager
def written(home: Path, server: SeaweedFS, **more: object) -> Iterator[Written]:
    bucket = server.bucket(f"faults-{uuid.uuid4().hex}")
    with fault_proxy(server.endpoint_url) as proxy:
        keys = home / "keys"
        keys.touch(0o600)
        keys.write_text(f'access_key = "{server.access_key}"\nsecret_key = "{server.secret_key}"\n')
        table = {
            "url": f"s3://{bucket}",
            "provider": "seaweedfs",
            "endpoint_url": proxy.url,
            "credentials": f"file:{keys}",
            **more,
        }
        with gateway(home / "gateway", table) as made:
            yield Written(made, proxy, server.client(), bucket, table)


@pytest.fixture
def faulty(tmp_path: Path, seaweedfs_server: SeaweedFS) -> Iterator[Written]:
    with written(tmp_path, seaweedfs_server) as found:
        found.made.mount()
        yield found


@contextmanager
def tool(path: Path) -> Iterator[IO[bytes]]:
    """Write a file in a process of its own, which has ended well when the context has.

    A thread of ours would do as well, but for what it shares: whatever we start meanwhile closes a
    copy of its open file before it runs, and waits with it.
    """
    with subprocess.Popen(
        ["dd", f"of={path}", "bs=1M", "status=none"], stdin=subprocess.PIPE
    ) as it:
        assert it.stdin is not None
        yield it.stdin
    assert it.returncode == 0


def close_of(path: Path, data: bytes) -> int:
    """Write a file, and return the errno of its close."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.write(file, data)
    try:
        os.close(file)
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.soak
def test_a_network_that_goes_in_the_middle_of_a_backup_only_makes_it_wait(
    faulty: Written, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(12):
        (data / f"f{number}").write_bytes(os.urandom(6 * MIB))
    (data / "big").write_bytes(os.urandom(80 * MIB))

    def outage() -> None:
        faulty.wait_for(lambda: any("partNumber" in line for line in faulty.proxy.requests))
        faulty.proxy.rules.append(Rule(is_refused=True))
        time.sleep(OUTAGE)
        faulty.proxy.rules.clear()

    away = threading.Thread(target=outage)
    begun = time.monotonic()
    away.start()
    subprocess.run(["cp", "-r", data, faulty.top / "backup"], check=True)
    away.join()

    assert time.monotonic() - begun > OUTAGE
    assert "trying again for" in faulty.made.log.read_text()
    for path in data.iterdir():
        stored = faulty.content(f"backup/{path.name}")
        assert hashlib.sha256(stored).digest() == hashlib.sha256(path.read_bytes()).digest()
    faulty.made.umount()


def test_storms_resets_and_damage_on_the_way_lose_nothing(faulty: Written) -> None:
    data = os.urandom(36 * MIB)
    faulty.proxy.rules += [
        Rule(every=4, status=503, code="SlowDown"),
        Rule(match="^PUT", every=4, upload_resets_after=100_000),
        Rule(match="^PUT", every=5, upload_flips_at=50_000),
        Rule(every=7, is_lost=True),
        Rule(every=9, status=500, code="InternalError"),
    ]

    for name in ("long", "pack-tmp-1"):
        with (faulty.top / name).open("wb", buffering=0) as file:
            for start in range(0, len(data), MIB):
                file.write(data[start : start + MIB])
    (faulty.top / "pack-tmp-1").rename(faulty.top / "pack")
    for number in range(8):
        (faulty.top / f"small{number}").write_bytes(data[: number * 1000])
    faulty.made.umount()

    assert faulty.content("long") == faulty.content("pack") == data
    for number in range(8):
        assert faulty.content(f"small{number}") == data[: number * 1000]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(403, "QuotaExceeded", errno.EDQUOT), (403, "AccessDenied", errno.EACCES)],
)
def test_what_a_store_refuses_is_told_by_close_kept_and_stored_when_it_is_mended(
    status: int, code: str, expected: int, faulty: Written
) -> None:
    refusal = Rule(match="^(PUT|POST)", status=status, code=code)
    faulty.proxy.rules.append(refusal)
    data = {"small": os.urandom(1000), "large": os.urandom(40 * MIB)}

    for name, content in data.items():
        assert close_of(faulty.top / name, content) == expected

    assert sorted(faulty.pending()) == [("large", "failed"), ("small", "failed")]
    assert code in faulty.made.run("spool", "list", "store").stdout
    faulty.wait_for(lambda: "store: 2 files cannot be stored: " in faulty.made.run("status").stdout)
    assert (faulty.top / "small").read_bytes() == data["small"]
    assert faulty.keys() == []
    faulty.made.kill()  # and what was told not to be stored survives a crash
    faulty.made.mount()
    faulty.proxy.rules.clear()
    faulty.made.run("spool", "retry", "store")
    for name, content in data.items():
        assert faulty.content(name) == content
    assert faulty.pending() == []
    faulty.made.umount()


def test_credentials_that_expire_in_the_middle_of_a_backup_are_waited_for(
    faulty: Written, tmp_path: Path
) -> None:
    data, keys = os.urandom(40 * MIB), tmp_path / "keys"
    right = keys.read_text()

    with tool(faulty.top / "long") as writer:
        writer.write(data[: 20 * MIB])
        expired = Rule(status=400, code="ExpiredToken")
        faulty.proxy.rules.append(expired)
        writer.write(data[20 * MIB :])
        writer.close()
        faulty.wait_for(lambda: "credentials expired" in faulty.made.run("status").stdout)
        keys.write_text(right)
        faulty.proxy.rules.clear()

    assert faulty.content("long") == data
    faulty.made.umount()


def test_a_clock_that_is_set_wrong_makes_writers_wait_and_says_by_how_much(
    faulty: Written,
) -> None:
    date = formatdate(time.time() + 1800, usegmt=True)
    faulty.proxy.rules.append(Rule(status=403, code="RequestTimeTooSkewed", headers={"Date": date}))
    with tool(faulty.top / "file") as writer:
        writer.write(b"content")
        writer.close()
        faulty.wait_for(lambda: "clock is 1" in faulty.made.run("status").stdout)
        faulty.proxy.rules.clear()

    assert faulty.content("file") == b"content"
    assert "behind the store's: set the clock" in faulty.made.run("status").stdout
    faulty.made.umount()


def test_a_disk_smaller_than_the_spool_makes_writers_wait(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    state, data = tmp_path / "gateway" / "state", os.urandom(100 * MIB)
    state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "spool", state], check=True)
    try:
        with written(tmp_path, seaweedfs_server) as small:
            small.made.mount()
            for name in ("long", "staged.tmp"):
                with (small.top / name).open("wb", buffering=0) as file:
                    for start in range(0, len(data), MIB):
                        file.write(data[start : start + MIB])
            (small.top / "staged.tmp").rename(small.top / "staged")

            digest = hashlib.sha256(data).digest()
            for name in ("long", "staged"):
                assert hashlib.sha256(small.content(name)).digest() == digest
            small.made.umount()
    finally:
        subprocess.run(["umount", "-l", state], check=True)


def test_umount_says_what_it_waits_for(tmp_path: Path, seaweedfs_server: SeaweedFS) -> None:
    with written(tmp_path, seaweedfs_server, durability="journal") as lazy:
        lazy.made.mount()
        lazy.proxy.rules.append(Rule(match="^PUT", status=503, code="SlowDown"))
        (lazy.top / "monday.dump").write_bytes(bytes(3 * MIB))
        (lazy.top / "tuesday.dump").write_bytes(bytes(3 * MIB))

        watched, terminal = pty.openpty()
        command = [str(COMMAND), "umount", str(lazy.made.mountpoint)]
        environment = lazy.made.environment | {"TERM": "xterm", "COLUMNS": "200"}
        with subprocess.Popen(
            command, env=environment, stderr=terminal, stdout=terminal, text=True
        ) as umount:
            os.close(terminal)
            shown = _until(watched, "SlowDown")
            lazy.proxy.rules.clear()
            shown += _rest(watched)
            assert umount.wait() == 0
        lazy.made.ended()

        assert "waiting: " in shown
        assert "MB" in shown
        assert lazy.content("monday.dump") == lazy.content("tuesday.dump") == bytes(3 * MIB)

        lazy.made.mount()
        lazy.proxy.rules.append(Rule(match="^PUT", status=503, code="SlowDown"))
        (lazy.top / "wednesday.dump").write_bytes(bytes(3 * MIB))
        lazy.wait_for(lambda: "SlowDown" in lazy.made.run("status").stdout)
        with subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True
        ) as umount:
            assert umount.stderr is not None
            line = umount.stderr.readline()
            lazy.proxy.rules.clear()
        lazy.made.ended()

        assert "waiting until 1 file (3.0 MiB) is in the store, wednesday.dump first" in line
        assert "SlowDown" in line


def _until(terminal: int, text: str) -> str:
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 65536).decode()
    return shown


def _rest(terminal: int) -> str:
    shown = ""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece.decode()
    except OSError as error:  # what a terminal says when nobody writes to it any more
        assert error.errno == errno.EIO
    os.close(terminal)
    return shown

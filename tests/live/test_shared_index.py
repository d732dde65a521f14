"""Two gateways over one bucket that share their index in PostgreSQL."""

import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.postgresql import PostgreSQL, postgresql
from servers.seaweedfs import SeaweedFS
from support.gateway import COMMAND, Gateway, gateway

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow, pytest.mark.timeout(900)]

SOON = 120.0  # seconds; far more than anything here takes


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    """One of this module's own: it is stopped and started."""
    with postgresql() as server:
        yield server


@pytest.fixture
def proxy(seaweedfs_server: SeaweedFS) -> Iterator[FaultProxy]:
    with fault_proxy(seaweedfs_server.endpoint_url) as running:
        yield running


@pytest.fixture
def two(
    tmp_path: Path,
    seaweedfs_server: SeaweedFS,
    proxy: FaultProxy,
    database: PostgreSQL,
    request: pytest.FixtureRequest,
) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways, each with caches, a spool and a mount of its own."""
    bucket = seaweedfs_server.bucket(f"b{abs(hash(request.node.name)) % 10**12}")
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": proxy.url,
        "metadata": database.url(),
        "metadata_password": f"file:{database.password_file}",
    }
    with ExitStack() as stack:
        made = [
            stack.enter_context(gateway(tmp_path / name, table, seaweedfs_server.environment()))
            for name in ("one", "other")
        ]
        for one in made:
            one.mount()
        yield made[0], made[1]


def until(is_so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + SOON
        time.sleep(0.05)


def told(one: Gateway) -> Mapping[str, Any]:
    """Return what the mount says of its metadata."""
    (found,) = one.statuses()
    return found["metadata"]  # type: ignore[no-any-return]


def waiting(one: Gateway) -> int:
    """Return how many requests of the kernel the mount has not answered."""
    (found,) = one.statuses()
    return found["requests_waiting"]  # type: ignore[no-any-return]


def test_what_one_gateway_does_the_other_shows_at_once(two: tuple[Gateway, Gateway]) -> None:
    one, other = (mounted.repository for mounted in two)
    (one / "d").mkdir()
    for number in range(20):
        name = f"file {number}"
        (one / "d" / name).write_text(f"first {number}")
        assert (other / "d" / name).read_text() == f"first {number}"
        assert os.listdir(other / "d") == [name]

        (other / "d" / name).write_text(f"second, longer {number}")
        assert (one / "d" / name).read_text() == f"second, longer {number}"

        (other / "d" / name).rename(other / "d" / "renamed")
        assert os.listdir(one / "d") == ["renamed"]
        assert (one / "d" / "renamed").stat().st_size == len(f"second, longer {number}")
        assert not (one / "d" / name).exists()

        (one / "d" / "renamed").unlink()
        assert os.listdir(other / "d") == []
        assert not (other / "d" / "renamed").exists()

    (one / "d").rmdir()
    assert os.listdir(other) == []


def test_a_password_is_in_no_log_and_no_status(
    two: tuple[Gateway, Gateway], database: PostgreSQL
) -> None:
    password = database.password_file.read_text()

    for one in two:
        assert password not in one.log.read_text()
        assert password not in one.run("status", "--json").stdout
        assert password not in Path(f"/proc/{one.pid}/cmdline").read_text()


def test_the_other_takes_over_when_the_gateway_that_crawls_is_killed(
    two: tuple[Gateway, Gateway], proxy: FaultProxy
) -> None:
    one, other = two
    (one.repository / "kept").write_text("1")
    until(lambda: told(other)["is_complete"] and not told(other)["is_due"])
    slow = Rule(match="list-type=2", delay=math.inf)
    proxy.rules.append(slow)
    refreshing = subprocess.Popen(
        [COMMAND, "cache", "rebuild", "store"], env=one.environment, stdout=-3, stderr=-3
    )
    until(lambda: told(other)["is_due"])
    refreshing.kill()
    refreshing.wait()
    until(lambda: any(told(each)["is_crawling"] for each in two))
    crawling, left = (one, other) if told(one)["is_crawling"] else (other, one)
    assert not told(left)["is_crawling"]

    crawling.kill()
    proxy.rules.remove(slow)
    (left.repository / "later").write_text("2")

    assert sorted(os.listdir(left.repository)) == ["kept", "later"]
    until(lambda: told(left)["is_complete"] and not told(left)["is_due"])


def test_while_the_database_is_away_everybody_waits_and_then_goes_on(
    two: tuple[Gateway, Gateway], database: PostgreSQL
) -> None:
    one, other = two
    names = [f"{number:03}" for number in range(200)]
    for name in names:
        (one.repository / name).write_text(name)
    database.stop()
    commands = [
        f"ls {other.repository}",
        f"cat {other.repository}/007",
        f"cat {other.repository}/absent",
        f"echo -n written > {one.repository}/new",
        f"rm {one.repository}/000",
    ]
    running = [subprocess.Popen(["sh", "-c", one], stdout=-1, stderr=-1) for one in commands]
    # The kernel lets some of them in only when others have been answered.
    until(lambda: waiting(other) >= 1 and waiting(one) >= 1)
    still = [process.poll() for process in running]
    database.start()
    printed = [process.communicate(timeout=SOON) for process in running]

    assert still == [None] * len(running)
    assert [process.returncode for process in running] == [0, 0, 1, 0, 0]
    assert set(printed[0][0].decode().split()) | {"000", "new"} == {*names, "new"}
    assert printed[1][0] == b"007"
    assert b"No such file" in printed[2][1]
    assert sorted(os.listdir(other.repository)) == [*names[1:], "new"]
    assert (other.repository / "new").read_text() == "written"


def test_status_is_told_while_the_database_is_away(
    two: tuple[Gateway, Gateway], database: PostgreSQL
) -> None:
    one, _ = two
    assert told(one)["index_trouble"] is None
    database.stop()
    try:
        trouble = told(one)["index_trouble"]
    finally:
        database.start()
    until(lambda: told(one)["index_trouble"] is None)

    assert "postgresql://" in trouble

"""Two gateways on one bucket: a tool's lock taken through one holds through the other."""

import errno
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.faults.rulesets import rule_set
from support.gateway import Gateway, gateway

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = 8
ENFORCES = """
[provider.enforcing]
title = "Enforces conditions"
addressing = "path"
region = "us-east-1"
conditional_put = "enforced"
"""

# What borg does: a directory of its own, a file in it, a rename to the name of the lock.
LOCK_AS_BORG = """
import os, sys
top, who, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(rounds):
    own, lock = f"{top}/{number}.{who}.tmp", f"{top}/{number}.exclusive"
    os.mkdir(own)
    open(f"{own}/{who}", "x").close()
    try:
        os.rename(own, lock)
    except OSError as error:
        print(number, error.errno)
    else:
        print(number, 0)
"""

# O_EXCL, written to and closed, as most tools do; and mkdir, as proper-lockfile does.
LOCK = """
import os, sys
top, who, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(rounds):
    try:
        file = os.open(f"{top}/{number}.lck", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except OSError as error:
        print(f"file-{number}", error.errno)
    else:
        os.write(file, who.encode())
        os.close(file)
        print(f"file-{number}", 0)
    try:
        os.mkdir(f"{top}/{number}.lock")
    except OSError as error:
        print(f"directory-{number}", error.errno)
    else:
        print(f"directory-{number}", 0)
"""


@dataclass
class Pair:
    mounts: tuple[Gateway, Gateway]
    client: Any
    bucket: str

    def race(self, script: str) -> dict[str, list[int]]:
        """Run `script` twice on each mount, all at once; return the errnos of each name."""

        def run(number: int) -> str:
            top = str(self.mounts[number % 2].repository / "locks")
            command = [sys.executable, "-c", script, top, f"me{number}", str(ROUNDS)]
            return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

        with ThreadPoolExecutor(4) as pool:
            outputs = list(pool.map(run, range(4)))
        found: dict[str, list[int]] = {}
        for line in "".join(outputs).splitlines():
            name, code = line.split()
            found.setdefault(name, []).append(int(code))
        return found

    def stored(self) -> list[str]:
        answer = self.client.list_objects_v2(Bucket=self.bucket)
        return [one["Key"] for one in answer.get("Contents", ()) if not one["Key"].endswith("/")]


@contextmanager
def one_behind_a_proxy(
    server: Any, home: Path
) -> Iterator[tuple[FaultProxy, str, Gateway, Gateway]]:
    """Yield a proxy, a bucket, a gateway that reaches it through the proxy, and one that does not.

    Neither is mounted yet.
    """
    bucket = server.bucket(f"two-{uuid.uuid4().hex}")
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "writers": "shared",
        "max_age": "0 s",
    }
    direct, keys = server.endpoint_url, server.environment()
    with (
        fault_proxy(direct) as proxy,
        gateway(home / "one", {**table, "endpoint_url": proxy.url}, keys) as one,
        gateway(home / "other", {**table, "endpoint_url": direct}, keys) as other,
    ):
        yield proxy, bucket, one, other


@pytest.fixture(params=["seaweedfs", "ceph"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    server = request.getfixturevalue(f"{request.param}_server")
    client, bucket = server.client(), f"two-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs" if request.param == "seaweedfs" else "enforcing",
        "endpoint_url": server.endpoint_url,
        "writers": "shared",
        "max_age": "0 s",
    }
    if server.ca_bundle:
        table["ca_bundle"] = server.ca_bundle
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    with ExitStack() as stack:
        made = [
            stack.enter_context(gateway(tmp_path / name, table, keys)) for name in ("one", "other")
        ]
        for one in made:
            one.config.write_text(one.config.read_text() + ENFORCES)
            one.mount()
        (made[0].repository / "locks").mkdir()
        yield Pair((made[0], made[1]), client, bucket)
        for one in made:
            one.umount()


def test_one_of_all_gateways_has_a_lock(pair: Pair) -> None:
    found = pair.race(LOCK)

    assert len(found) == 2 * ROUNDS
    for name, codes in found.items():
        assert sorted(codes) == [0, *3 * [errno.EEXIST]], name
    written = {key for key in pair.stored() if key.endswith(".lck")}
    assert len(written) == ROUNDS
    for key in written:
        body = pair.client.get_object(Bucket=pair.bucket, Key=key)["Body"].read()
        assert body.startswith(b"me")


def test_a_lock_directory_is_renamed_onto_none_of_another_gateway(pair: Pair) -> None:
    found = pair.race(LOCK_AS_BORG)

    for name, codes in found.items():
        assert sorted(codes) == [0, *3 * [errno.ENOTEMPTY]], name
    for number in range(ROUNDS):
        held = [key for key in pair.stored() if key.startswith(f"locks/{number}.exclusive/")]
        assert len(held) == 1

    one, other = pair.mounts
    lock = "locks/0.exclusive"
    shutil.rmtree(one.repository / lock)
    mine = next(one for one in (other.repository / "locks").glob("0.*.tmp") if os.listdir(one))
    os.rename(mine, other.repository / lock)
    assert len(os.listdir(one.repository / lock)) == 1


def test_a_directory_that_was_renamed_is_free_for_another_gateway(pair: Pair) -> None:
    one, other = (made.repository / "locks" for made in pair.mounts)
    for name in ("old", "old/sub", "old/sub/empty"):
        (one / name).mkdir()
    (one / "old" / "sub" / "file").write_bytes(b"content")
    (one / "old").rename(one / "new")

    assert os.listdir(other) == ["new"]
    (other / "old").mkdir()
    assert sorted(os.listdir(other)) == ["new", "old"]
    assert os.listdir(other / "old") == []


def test_a_delete_without_an_answer_leaves_the_lock_of_another_gateway(
    seaweedfs_server: Any, tmp_path: Path
) -> None:
    with (
        one_behind_a_proxy(seaweedfs_server, tmp_path) as (proxy, _, one, other),
        ThreadPoolExecutor(1) as pool,
    ):
        one.mount()
        (one.repository / "lock").write_bytes(b"one")
        other.mount()  # takes longer than the second to which a store tells the time
        proxy.rules.append(Rule(match="DELETE .*lock", is_lost=True, times=1))

        released = pool.submit(os.unlink, one.repository / "lock")
        while True:
            try:
                with (other.repository / "lock").open("xb") as file:
                    file.write(b"other")
                break
            except FileExistsError:
                continue

        released.result()
        assert (other.repository / "lock").read_bytes() == b"other"
        assert sum(line.startswith("DELETE") for line in proxy.requests) == 1
        for made in (one, other):
            made.umount()


def test_what_another_gateway_writes_after_a_kill_9_amid_a_rename_stays(
    seaweedfs_server: Any, tmp_path: Path
) -> None:
    with (
        one_behind_a_proxy(seaweedfs_server, tmp_path) as (proxy, bucket, one, other),
        ThreadPoolExecutor(1) as pool,
    ):
        one.mount()
        (one.repository / "old").mkdir()
        for name in ("0", "1"):
            (one.repository / "old" / name).write_text(f"one {name}")
        proxy.rules.append(Rule(match="DELETE .*/old/", status=503))
        moved = pool.submit(os.rename, one.repository / "old", one.repository / "new")
        while not {"old/0", "old/1"} <= {
            line.rpartition(f"{bucket}/")[2] for line in proxy.requests if line[:3] == "DEL"
        }:
            with suppress(TimeoutError):
                raise AssertionError(moved.exception(0.01))
        one.kill()
        assert isinstance(moved.exception(), OSError)
        proxy.rules.clear()

        other.mount()
        for name in ("old/0", "old/theirs", "new/1", "new/theirs"):
            (other.repository / name).write_text("other")
        one.mount()
        one.run("spool", "wait", "store")

        client = seaweedfs_server.client()
        found = {
            key["Key"]: client.get_object(Bucket=bucket, Key=key["Key"])["Body"].read()
            for key in client.list_objects_v2(Bucket=bucket)["Contents"]
            if not key["Key"].endswith("/")
        }
        theirs = dict.fromkeys(("old/0", "old/theirs", "new/1", "new/theirs"), b"other")
        assert found == theirs | {"old/1": b"one 1", "new/0": b"one 0"}
        for name, data in found.items():
            assert (one.repository / name).read_bytes() == data
        for made in (one, other):
            made.umount()


def test_where_conditions_are_ignored_locks_are_refused_aloud(
    seaweedfs_server: Any, tmp_path: Path
) -> None:
    bucket = seaweedfs_server.bucket(f"two-{uuid.uuid4().hex}")
    with fault_proxy(seaweedfs_server.endpoint_url) as proxy:
        proxy.emulate(rule_set("garage"))
        table = {
            "url": f"s3://{bucket}",
            "provider": "garage",
            "endpoint_url": proxy.url,
            "region": "us-east-1",
            "writers": "shared",
        }
        with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
            made.mount()
            top = made.repository
            (top / "data").mkdir()
            (top / "data" / "plain").write_bytes(b"written")
            (top / "data" / "pack-tmp-1").open("xb").close()
            os.rename(top / "data" / "pack-tmp-1", top / "data" / "pack")

            for lock in (
                lambda: (top / "lock").open("xb"),
                lambda: (top / "repository.lock").mkdir(),
                lambda: os.rename(top / "data", top / "lock.exclusive"),
            ):
                with pytest.raises(OSError) as caught:
                    lock()
                assert caught.value.errno == errno.EOPNOTSUPP

            assert 'write locks = "gateway" if no tool on another gateway' in made.log.read_text()
            assert sorted(os.listdir(top / "data")) == ["pack", "plain"]
            made.umount()

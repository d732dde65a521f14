"""az:// and gs:// as a user has them: mounted, written to, backed up to, restored from."""

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.azurite import Azurite
from servers.gcs import FakeGcs
from support.compare import differences
from support.gateway import Gateway, gateway
from support.trees import make_odd_tree, run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow, pytest.mark.timeout(900)]

MEMORY_MAX = 250 * 1024 * 1024  # bytes resident, the promise
PASSWORD = "correct horse"
LARGE = 40 * 1024 * 1024  # bytes; several parts of a multipart upload


@pytest.fixture(params=["azurite_server", "gcs_server"])
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    server: Azurite | FakeGcs = request.getfixturevalue(request.param)
    name = f"b{abs(hash(request.node.name)) % 10**12}"
    password = tmp_path / "restic-password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    if isinstance(server, Azurite):
        url, environment = f"az://{server.container(name)}/xo", server.environment()
    else:
        url, environment = f"gs://{server.bucket(name)}/xo", {}
    table = {
        "url": url,
        "endpoint_url": server.endpoint_url,
        "secrets": {"restic": f"file:{password}"},
        "attributes": "stored",
    }
    with gateway(tmp_path / "gateway", table, environment) as made:
        made.mount()
        yield made


def restic(repository: object, *arguments: object) -> str:
    return run("restic", "-r", repository, "--no-cache", *arguments, RESTIC_PASSWORD=PASSWORD)


def test_what_cp_writes_reads_back_after_the_caches_are_gone(
    mounted: Gateway, tmp_path: Path
) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(os.urandom(LARGE))
    small.write_bytes(b"small")
    directory = mounted.repository / "d é+%"
    directory.mkdir()

    run("cp", "-p", large, small, directory)
    os.rename(directory / "large", directory / "renamed")
    mounted.umount()
    run("rm", "-r", mounted.home / "cache")
    mounted.mount()

    assert sorted(os.listdir(mounted.repository)) == ["d é+%"]
    assert sorted(os.listdir(directory)) == ["renamed", "small"]
    assert filecmp.cmp(large, directory / "renamed", shallow=False)
    assert filecmp.cmp(small, directory / "small", shallow=False)
    assert (directory / "renamed").stat().st_mtime_ns == large.stat().st_mtime_ns
    assert mounted.resident() < MEMORY_MAX
    mounted.umount()


def test_restic_lives_on_the_path_and_is_restored_by_mount(
    mounted: Gateway, tmp_path: Path
) -> None:
    repository = mounted.repository / "web"
    odd = make_odd_tree(tmp_path / "odd")

    restic(repository, "init")
    restic(repository, "backup", odd)
    (odd / "later").write_text("second snapshot")
    restic(repository, "backup", odd)
    restic(repository, "check", "--read-data")
    restic(repository, "forget", "--keep-last", "1", "--prune")

    (host,) = (mounted.backups / "restic" / "web").iterdir()
    restored = tmp_path / "restored"
    run("cp", "-a", host / "latest" / odd.relative_to("/"), restored)
    assert differences(odd, restored) == []
    assert len([name for name in os.listdir(host) if name != "latest"]) == 1
    assert mounted.resident() < MEMORY_MAX
    mounted.umount()

"""The main job on a real server: tools write through the path, single files come back by mount."""

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.compare import differences
from support.gateway import Gateway, gateway
from support.trees import make_odd_tree, run

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow, pytest.mark.timeout(900)]

MEMORY_MAX = 250 * 1024 * 1024  # bytes resident, the promise
PASSWORD = "correct horse"


@pytest.fixture
def mounted(
    tmp_path: Path, seaweedfs_server: SeaweedFS, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    bucket = seaweedfs_server.bucket(f"b{abs(hash(request.node.name)) % 10**12}")
    password = tmp_path / "restic-password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
        "secrets": {"restic": f"file:{password}"},
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount()
        yield made


def restic(repository: object, *arguments: object, **environment: str) -> str:
    return run(
        "restic",
        "-r",
        repository,
        "--no-cache",
        *arguments,
        RESTIC_PASSWORD=PASSWORD,
        **environment,
    )


def native(mounted: Gateway, server: SeaweedFS, path: str) -> str:
    """The address by which restic's own S3 backend reaches what was written to `path`."""
    bucket = mounted.config.read_text().split('"s3://')[1].split('"')[0]
    return f"s3:{server.endpoint_url}/{bucket}/{path}"


def test_restic_lives_on_the_path_and_its_snapshots_are_directories(
    mounted: Gateway, seaweedfs_server: SeaweedFS, tmp_path: Path
) -> None:
    repository = mounted.repository / "web"
    odd = make_odd_tree(tmp_path / "odd")

    restic(repository, "init")
    restic(repository, "backup", odd, "/usr/lib/python3")
    (odd / "later").write_text("second snapshot")
    restic(repository, "backup", odd, "/usr/share/doc")
    restic(repository, "check", "--read-data")
    restic(repository, "prune")
    restic(native(mounted, seaweedfs_server, "web"), "check", **seaweedfs_server.environment())

    host = next((mounted.backups / "restic" / "web").iterdir())
    times = sorted(name for name in os.listdir(host) if name != "latest")
    assert len(times) == 2
    assert os.readlink(host / "latest") == times[1]
    first, second = (host / time for time in times)
    assert not (first / odd.relative_to("/") / "later").exists()
    assert differences(odd, second / odd.relative_to("/")) == []
    assert differences(Path("/usr/lib/python3"), first / "usr/lib/python3") == []
    assert differences(Path("/usr/share/doc"), second / "usr/share/doc") == []
    assert mounted.resident() < MEMORY_MAX
    mounted.umount()


SUFFIXES = ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"]
GETS_MAX = 4  # requests for one small file of an archive that was opened before
FETCHED_MAX = 16 * 1024 * 1024  # bytes of them


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tar_written_through_the_path_is_a_directory(
    mounted: Gateway, tmp_path: Path, suffix: str
) -> None:
    odd = make_odd_tree(tmp_path / "odd")

    run("tar", "-C", odd, "-S", "--format=pax", "-caf", mounted.repository / f"x.{suffix}", ".")

    assert differences(odd, mounted.backups / "tar" / "x") == []
    assert mounted.resident() < MEMORY_MAX
    mounted.umount()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_near_the_end_of_a_known_archive_costs_few_requests(
    mounted: Gateway, tmp_path: Path, suffix: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(24):
        (source / f"{number:02}").write_bytes(os.urandom(500_000) + bytes(500_000))
    run("tar", "-C", source, "--sort=name", "-caf", mounted.repository / f"x.{suffix}", ".")
    assert sorted(os.listdir(mounted.backups / "tar" / "x")) == sorted(os.listdir(source))
    mounted.umount()
    blocks = next((mounted.home / "cache").rglob("blocks"))
    run("rm", "-r", blocks)
    mounted.mount()
    before = store_counters(mounted)

    read = (mounted.backups / "tar" / "x" / "22").read_bytes()

    after = store_counters(mounted)
    assert read == (source / "22").read_bytes()
    assert after["gets"] - before["gets"] <= GETS_MAX
    assert after["bytes"] - before["bytes"] <= FETCHED_MAX
    mounted.umount()


def store_counters(mounted: Gateway) -> dict[str, int]:
    (status,) = mounted.statuses()
    return {"gets": status["requests"].get("get", 0), "bytes": status["bytes_in"]}


def test_rsync_and_cp_write_and_read_back(mounted: Gateway, tmp_path: Path) -> None:
    odd = make_odd_tree(tmp_path / "odd")
    (odd / "names" / "back\\slash").unlink()  # SeaweedFS stores such a key but never lists it
    os.utime(odd / "names", ns=(1_600_000_000_000_000_000, 1_600_000_000_000_000_000))

    run("rsync", "-a", f"{odd}/", f"{mounted.repository}/synced/")
    run("cp", "-r", "--preserve=mode,ownership,timestamps", odd, mounted.repository / "copied")
    again = run("rsync", "-ai", f"{odd}/", f"{mounted.repository}/synced/")

    def unlinked(found: list[str]) -> list[str]:
        return [line for line in found if not line.startswith("hard links")]

    assert again == ""
    assert unlinked(differences(odd, mounted.repository / "synced")) == []
    assert unlinked(differences(odd, mounted.repository / "copied")) == []
    mounted.umount()
    mounted.mount()
    assert unlinked(differences(odd, mounted.repository / "synced")) == []


def test_a_file_is_in_the_bucket_when_close_returns(
    mounted: Gateway, seaweedfs_server: SeaweedFS, tmp_path: Path
) -> None:
    content = os.urandom(30_000_000)
    (tmp_path / "source").write_bytes(content)

    run("cp", tmp_path / "source", mounted.repository / "copy")

    bucket = mounted.config.read_text().split('"s3://')[1].split('"')[0]
    stored = seaweedfs_server.client().get_object(Bucket=bucket, Key="copy")["Body"].read()
    assert stored == content
    assert filecmp.cmp(tmp_path / "source", mounted.repository / "copy", shallow=False)

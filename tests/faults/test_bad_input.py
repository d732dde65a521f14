"""What users get wrong and stores hold damaged: a clear message, and nothing lost."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.gateway import COMMAND, Gateway, gateway
from support.trees import make_odd_tree, run

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

PASSWORD = "correct horse"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway over a local directory, `tmp_path / "store"`, not mounted yet."""
    store = tmp_path / "store"
    store.mkdir()
    with gateway(tmp_path / "gateway", {"url": f"file://{store}"}) as made:
        yield made


@pytest.fixture
def restic(tmp_path: Path, local: Gateway) -> Path:
    """A restic repository `web` in the store with one snapshot of an odd tree; the tree's path."""
    odd = make_odd_tree(tmp_path / "odd")
    repository = tmp_path / "store" / "web"
    run("restic", "-r", repository, "init", RESTIC_PASSWORD=PASSWORD)
    run("restic", "-r", repository, "backup", odd, RESTIC_PASSWORD=PASSWORD)
    return odd


def configure(local: Gateway, tmp_path: Path, password: str) -> None:
    secret = tmp_path / "password"
    secret.write_text(password)
    secret.chmod(0o600)
    secrets = {"restic": f"file:{secret}"}
    local.configure({"url": f"file://{tmp_path / 'store'}", "secrets": secrets})


def failing(made: Gateway, *arguments: str, code: int, says: str) -> None:
    result = made.run(*arguments, check=False)
    assert says in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == code, result.stderr


def test_an_unknown_configuration_key_is_named_with_its_file(local: Gateway) -> None:
    local.configure({"url": "file:///tmp", "regoin": "x"})

    failing(local, "ls", "store:", code=2, says=f"{local.config}")
    failing(local, "ls", "store:", code=2, says="regoin")


@pytest.mark.live
def test_a_wrong_bucket_is_named(tmp_path: Path, seaweedfs_server: SeaweedFS) -> None:
    table = {
        "url": "s3://no-such-bucket",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        failing(made, "ls", "store:repository", code=1, says="no-such-bucket")
        failing(made, "mount", "store", str(made.mountpoint), code=1, says="no-such-bucket")


@pytest.mark.live
def test_wrong_credentials_are_said_to_be_wrong(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    table = {
        "url": f"s3://{seaweedfs_server.bucket('locked')}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
    }
    wrong = seaweedfs_server.environment() | {"AWS_SECRET_ACCESS_KEY": "hunter2"}
    with gateway(tmp_path / "gateway", table, wrong) as made:
        failing(made, "mount", "store", str(made.mountpoint), code=1, says="credentials")
        assert "hunter2" not in made.run("ls", "store:", check=False).stderr


def test_without_dev_fuse_it_says_what_to_do(local: Gateway) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test hides /dev/fuse in a mount namespace, which takes root")
    hide = 'mount -t tmpfs none /dev && exec "$0" "$@"'
    command = ["unshare", "-m", "sh", "-c", hide, str(COMMAND), "mount", "store"]

    result = subprocess.run(
        [*command, str(local.mountpoint)], env=local.environment, capture_output=True, text=True
    )

    assert result.returncode in (1, 2)
    assert "/dev/fuse" in result.stderr
    assert "modprobe fuse" in result.stderr


def test_a_mount_point_in_use_is_refused(local: Gateway) -> None:
    local.mount()

    failing(local, "mount", "store", str(local.mountpoint), code=2, says=str(local.mountpoint))

    assert (local.mountpoint / "repository").is_dir()
    local.umount()


def test_a_truncated_tar_is_listed_with_the_reason_and_not_shown(
    local: Gateway, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    (tmp_path / "random").write_bytes(os.urandom(1_000_000))
    run("tar", "-C", tmp_path, "-cf", store / "good.tar", "random")
    (store / "bad.tar").write_bytes((store / "good.tar").read_bytes()[:512_000])
    local.mount()

    assert os.listdir(local.backups / "tar") == ["good"]
    listed = local.run("backups", "store", "--all").stdout
    assert "bad" in listed
    assert "end" in listed
    assert "bad" not in local.run("backups", "store").stdout
    local.umount()


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.zst"])
def test_a_tar_whose_truncation_shows_only_inside_fails_when_opened(
    local: Gateway, tmp_path: Path, suffix: str
) -> None:
    """Zeros at the cut look like an end, and gzip has no footer that a listing could check."""
    store = tmp_path / "store"
    (tmp_path / "zeros").write_bytes(bytes(1_000_000) + os.urandom(1_000_000))
    run("tar", "-C", tmp_path, "-caf", tmp_path / f"whole.{suffix}", "zeros")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    (store / f"bad.{suffix}").write_bytes(whole[: 512_000 if suffix == "tar" else len(whole) // 2])
    local.mount()

    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(local.backups / "tar" / "bad")
    assert f"bad.{suffix}" in local.log.read_text()
    assert "bad" in local.run("backups", "store", "--all").stdout
    assert "bad" not in local.run("backups", "store").stdout
    local.umount()


def test_a_flipped_byte_in_a_pack_harms_only_what_it_holds(
    local: Gateway, restic: Path, tmp_path: Path
) -> None:
    configure(local, tmp_path, PASSWORD)
    packs = sorted(
        (path for path in (tmp_path / "store/web/data").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    pack = packs[-1]
    data = bytearray(pack.read_bytes())
    data[len(data) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)

    assert_damage_is_confined(local, restic, pack.name)


def test_a_deleted_pack_harms_only_what_it_held(
    local: Gateway, restic: Path, tmp_path: Path
) -> None:
    configure(local, tmp_path, PASSWORD)
    packs = (path for path in (tmp_path / "store/web/data").rglob("*") if path.is_file())
    pack = max(packs, key=lambda path: path.stat().st_size)
    pack.unlink()

    assert_damage_is_confined(local, restic, pack.name)


def assert_damage_is_confined(local: Gateway, source: Path, pack: str) -> None:
    """Some files answer EIO, no file answers wrong bytes, and the log names the pack."""
    local.mount()
    host = next((local.backups / "restic" / "web").iterdir())
    top = host / "latest" / source.relative_to("/")
    broken, right = [], []
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                continue
            try:
                assert (top / path.relative_to(source)).read_bytes() == path.read_bytes()
                right.append(path)
            except OSError as error:
                assert error.errno == 5
                broken.append(path)
    assert broken
    assert right
    assert pack in local.log.read_text()
    local.umount()


def test_a_wrong_password_is_explained_and_hides_nothing_else(
    local: Gateway, restic: Path, tmp_path: Path
) -> None:
    configure(local, tmp_path, "wrong password")
    run("tar", "-C", restic, "-cf", tmp_path / "store" / "other.tar", ".")
    local.mount()

    assert os.listdir(local.backups / "restic" / "web") == ["PASSWORD-NEEDED.txt"]
    text = (local.backups / "restic" / "web" / "PASSWORD-NEEDED.txt").read_text()
    assert "secrets" in text
    assert "wrong password" not in text
    assert (local.backups / "tar" / "other" / "small").exists()
    assert "password" in local.run("backups", "store", "--all").stdout
    local.umount()


@pytest.mark.live
def test_odd_keys_are_shown_and_read(tmp_path: Path, seaweedfs_server: SeaweedFS) -> None:
    """Keys that are no paths; SeaweedFS refuses some of them, and all that it takes show."""
    client = seaweedfs_server.client()
    bucket = seaweedfs_server.bucket("odd-keys")
    keys = ["plain", "a/b", "x" * 300, "/leading", "one//two", "both", "both/inside", "up/../down"]
    for key in keys:
        with suppress(client.exceptions.ClientError):
            client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    listed = {item["Key"] for page in pages for item in page.get("Contents", []) if item["Size"]}
    stored = [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in listed]
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount()

        shown = files_below(made.repository)

        assert len(listed) >= len(keys) - 2
        assert sorted(shown) == sorted(stored)
        made.umount()


def test_odd_files_of_a_local_store_are_shown_and_read(local: Gateway, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "dir").mkdir()
    (store / "dir" / "back\\slash").write_text("1")
    (store / "dir" / "%=percent").write_text("2")
    (store / "dir" / "..hidden").write_text("3")
    local.mount()

    assert sorted(files_below(local.repository)) == [b"1", b"2", b"3"]
    local.umount()


def test_names_that_cannot_be_keys_are_refused(local: Gateway) -> None:
    local.mount()

    with pytest.raises(OSError, match="too long"):
        (local.repository / ("x" * 300)).write_text("too long")
    with pytest.raises(OSError, match=r"Invalid|Illegal|character"):
        open(os.fsencode(local.repository) + b"/\xff\xfe", "wb").close()
    assert os.listdir(local.repository) == []
    local.umount()


def test_a_store_that_vanished_is_named(local: Gateway, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")

    failing(local, "ls", "store:repository", code=1, says=str(tmp_path / "store"))


def files_below(top: Path) -> list[bytes]:
    return [Path(folder, name).read_bytes() for folder, _, names in os.walk(top) for name in names]

"""What is stored when, and what becomes of faults and crashes, as docs/semantics.md has it."""

import errno
import os
import signal
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from servers.faultproxy import Rule, fault_proxy
from servers.seaweedfs import SeaweedFS
from support.gateway import gateway
from support.mounting import Mounted, clear, launched, mounted
from support.repositories import on_disk, shown, small_parts
from support.syscalls import refusal
from support.writing import CONFIG, memory, opened

from backgate.fs.tree import Tree
from backgate.gateway.errors import Refused, StoreFull, Unreachable
from backgate.gateway.providers.memory import Fault
from backgate.gateway.units import MIB

pytestmark = [pytest.mark.mounted, pytest.mark.slow]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a local store's objects are seen beside the mount."""
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def mount(tmp_path: Path, store: Path) -> Iterator[Mounted]:
    """A repository of its own, which may be killed."""
    made = launched(partial(shown, tmp_path, on_disk(tmp_path), "repository"), tmp_path)
    try:
        yield made
    finally:
        clear(made)


def killed_and_again(mount: Mounted, home: Path) -> Mounted:
    """End the gateway as a crash does, and start it again."""
    mount.kill(signal.SIGKILL)
    clear(mount)
    return launched(partial(shown, home, on_disk(home), "repository"), home)


def test_close_means_that_the_object_is_in_the_store(mount: Mounted, store: Path) -> None:
    descriptor = os.open(mount.path / "file", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"content")
    assert not (store / "file").exists()

    os.close(descriptor)

    assert (store / "file").read_bytes() == b"content"


def test_what_was_synchronized_survives_a_crash(
    mount: Mounted, store: Path, tmp_path: Path
) -> None:
    descriptor = os.open(mount.path / "file", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"content")
    os.fsync(descriptor)

    again = killed_and_again(mount, tmp_path)
    try:
        assert (again.path / "file").read_bytes() == b"content"
        again.wait_for((store / "file").exists)
    finally:
        clear(again)
        with pytest.raises(OSError):
            os.close(descriptor)


def test_what_was_open_in_a_crash_is_not_stored(
    mount: Mounted, store: Path, tmp_path: Path
) -> None:
    descriptor = os.open(mount.path / "file", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"content")

    again = killed_and_again(mount, tmp_path)
    try:
        assert not (again.path / "file").exists()
        assert not (store / "file").exists()
        assert "kept, not stored" in again.logged()
    finally:
        clear(again)
        with pytest.raises(OSError):
            os.close(descriptor)


def test_a_temporary_name_stays_local_until_it_is_renamed(mount: Mounted, store: Path) -> None:
    names = ("pack-tmp-123", "x.tmp", "x.tmp.0f", "x.partial", "x.part", "x.lock", ".x.AbC123")
    for number, name in enumerate(names):
        (mount.path / name).write_bytes(b"content")
        assert not (store / name).exists()
        os.rename(mount.path / name, mount.path / f"{number}")

        assert (store / f"{number}").read_bytes() == b"content"


def test_more_temporary_names_can_be_configured(tmp_path: Path, store: Path) -> None:
    config = on_disk(tmp_path, staged=["*.inprogress"])
    with mounted(partial(shown, tmp_path, config, "repository"), tmp_path) as mount:
        (mount.path / "x.inprogress").write_bytes(b"content")
        assert not (store / "x.inprogress").exists()
        os.rename(mount.path / "x.inprogress", mount.path / "x")

        assert (store / "x").read_bytes() == b"content"


def test_rename_of_a_stored_object_is_in_the_store(mount: Mounted, store: Path) -> None:
    (mount.path / "old").write_bytes(b"content")
    (mount.path / "directory").mkdir()
    (mount.path / "directory" / "inner").write_bytes(b"inner")

    os.rename(mount.path / "old", mount.path / "new")
    os.rename(mount.path / "directory", mount.path / "other")

    assert (store / "new").read_bytes() == b"content"
    assert (store / "other" / "inner").read_bytes() == b"inner"
    assert not (store / "old").exists()
    assert not (store / "directory" / "inner").exists()


def test_unlink_is_in_the_store(mount: Mounted, store: Path) -> None:
    (mount.path / "file").write_bytes(b"content")

    (mount.path / "file").unlink()

    assert not (store / "file").exists()


def test_with_a_journal_close_means_that_the_gateway_has_it(tmp_path: Path, store: Path) -> None:
    config = on_disk(tmp_path, durability="journal")
    mount = launched(partial(shown, tmp_path, config, "repository"), tmp_path)
    try:
        for number in range(20):
            (mount.path / f"{number}").write_bytes(b"content")
    finally:
        again = killed_and_again(mount, tmp_path)
    try:
        for number in range(20):
            assert (again.path / f"{number}").read_bytes() == b"content"
        again.wait_for(lambda: all((store / f"{number}").exists() for number in range(20)))
    finally:
        clear(again)


@asynccontextmanager
async def failing(
    home: Path, fault: Fault, _happened: Callable[[str, bytes], None]
) -> AsyncIterator[Tree]:
    """A repository whose store fails so."""
    provider = memory()
    provider.put("stored", b"content")
    provider.faults.append(fault)
    async with opened(home / "gateway", provider, patience=0.1) as repository:
        yield repository.tree


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("store: no answer"), errno.EIO),
        (Refused("store: forbidden"), errno.EACCES),
        (StoreFull("store: quota"), errno.EDQUOT),
    ],
)
def test_close_reports_what_could_not_be_stored_and_the_bytes_stay(
    tmp_path: Path, error: Exception, code: int
) -> None:
    fault = Fault(verb="put", key="file", error=lambda: error)
    with mounted(partial(failing, tmp_path, fault), tmp_path) as mount:
        descriptor = os.open(mount.path / "file", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"content")

        assert refusal(lambda: os.close(descriptor)) == code
        assert (mount.path / "file").read_bytes() == b"content"


def test_a_fault_that_passes_is_never_seen(tmp_path: Path) -> None:
    fault = Fault(verb="put", times=1, error=lambda: Unreachable("store: no answer"))
    with mounted(partial(failing, tmp_path, fault), tmp_path) as mount:
        (mount.path / "file").write_bytes(b"content")

        assert (mount.path / "file").read_bytes() == b"content"


def test_could_not_ask_is_never_is_not_there(tmp_path: Path) -> None:
    fault = Fault(verb="[hp]*", error=lambda: Unreachable("store: no answer"))  # head, page
    with mounted(partial(failing, tmp_path, fault), tmp_path) as mount:
        assert refusal(lambda: os.stat(mount.path / "stored")) == errno.EIO
        assert refusal(lambda: os.stat(mount.path / "absent")) == errno.EIO
        assert refusal(lambda: os.listdir(mount.path)) == errno.EIO


def test_a_file_longer_than_the_spool_is_written(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, spool=100_000)
    content = os.urandom(1_000_000)
    with mounted(partial(small_parts, tmp_path, config), tmp_path) as mount:
        (mount.path / "file").write_bytes(content)

        assert (mount.path / "file").read_bytes() == content


@pytest.fixture
def backups(tmp_path: Path, store: Path) -> Iterator[Path]:
    """`backups/` of a combined mount whose repository holds a tar archive."""
    with tarfile.open(store / "archive.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        file = tarfile.TarInfo("file")
        file.size, file.mode, file.uid, file.gid, file.mtime = 7, 0o4640, 11, 22, 1234567890
        file.pax_headers = {"SCHILY.xattr.user.name": "value"}
        archive.addfile(file, BytesIO(b"content"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "file"
        archive.addfile(link)
    with mounted(partial(shown, tmp_path, on_disk(tmp_path), "all"), tmp_path) as mount:
        yield mount.path / "backups" / "tar" / "archive"


def test_every_change_below_backups_is_erofs(backups: Path) -> None:
    for act in (
        lambda: os.open(backups / "new", os.O_CREAT | os.O_WRONLY),
        lambda: os.open(backups / "file", os.O_WRONLY),
        lambda: os.mkdir(backups / "new"),
        lambda: os.unlink(backups / "file"),
        lambda: os.rename(backups / "file", backups / "new"),
        lambda: os.chmod(backups / "file", 0o600),
        lambda: os.utime(backups / "file"),
        lambda: os.truncate(backups / "file", 0),
        lambda: os.symlink("x", backups / "new"),
        lambda: os.link(backups / "file", backups / "new"),
        lambda: os.setxattr(backups / "file", "user.x", b"1"),
    ):
        assert refusal(act) == errno.EROFS


def test_a_backup_shows_modes_owners_times_links_and_extended_attributes(backups: Path) -> None:
    found = (backups / "file").stat()

    assert stat.S_IMODE(found.st_mode) == 0o4640
    assert (found.st_uid, found.st_gid, found.st_mtime) == (11, 22, 1234567890)
    assert os.readlink(backups / "link") == "file"
    assert os.getxattr(backups / "file", "user.name") == b"value"
    assert (backups / "link").read_bytes() == b"content"


def test_nothing_is_renamed_or_linked_between_repository_and_backups(backups: Path) -> None:
    repository = backups.parents[2] / "repository"
    mine, theirs = repository / "file", backups / "file"
    mine.touch()

    assert refusal(lambda: os.rename(theirs, repository / "x")) == errno.EROFS
    assert refusal(lambda: os.rename(mine, backups / "x")) == errno.EROFS
    assert refusal(lambda: os.link(mine, backups / "x")) == errno.EROFS
    assert refusal(lambda: os.link(theirs, repository / "x")) == errno.EXDEV
    assert (mine.exists(), theirs.read_bytes()) == (True, b"content")


@pytest.mark.live
def test_bytes_that_were_damaged_on_their_way_are_sent_again(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    seaweedfs_server.bucket("damaged")
    files = {"small": b"content", "large": os.urandom(40 * MIB)}
    with fault_proxy(seaweedfs_server.endpoint_url) as proxy:
        table = {"url": "s3://damaged", "provider": "seaweedfs", "endpoint_url": proxy.url}
        with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
            made.mount()
            for target, flips_at in (("/small", 3), ("partNumber=2", 5_000_000)):
                damage = Rule(match=f"PUT .*{target}", times=2, upload_flips_at=flips_at)
                proxy.rules.append(damage)
            for name, data in files.items():
                (made.repository / name).write_bytes(data)
            made.umount()

    client = seaweedfs_server.client()
    assert {
        name: client.get_object(Bucket="damaged", Key=name)["Body"].read() for name in files
    } == files
    client.close()
    assert [rule.times for rule in proxy.rules] == [0, 0]

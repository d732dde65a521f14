"""What only a mirror keeps, and what a repository does instead, as docs/semantics.md has it."""

import errno
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.gateway import gateway
from support.mounting import Mounted
from support.repositories import mounted_anew
from support.syscalls import Script, assert_same, refusal

READY_WITHIN = 120.0  # seconds

pytestmark = [pytest.mark.mounted, pytest.mark.slow]


def test_a_repository_refuses_links_and_devices(plain: Path) -> None:
    script = """
    write f
    link f g
    mknod p fifo
    mknod c char 0644 1:3
    mknod s socket
    """

    assert [line.rpartition(": ")[2] for line in Script(plain).run(script)] == [
        "ok", "EPERM", "EPERM", "EPERM", "EPERM",
    ]  # fmt: skip


def test_a_repository_has_no_extended_attributes(plain: Path) -> None:
    (plain / "file").touch()

    assert refusal(lambda: os.setxattr(plain / "file", "user.a", b"1")) == errno.EOPNOTSUPP
    assert refusal(lambda: os.listxattr(plain / "file")) == errno.EOPNOTSUPP


def test_extended_attributes_are_kept_in_a_mirror(mirror: Path) -> None:
    script = """
    write f
    mkdir d
    setxattr f user.a 1
    setxattr f user.b two
    listxattr f
    getxattr f user.missing
    setxattr f user.a other
    getxattr f user.a
    removexattr f user.a
    removexattr f user.a
    setxattr d user.d dir
    getxattr d user.d
    stamp f
    setxattr f user.c 3
    moved f
    as 65534 setxattr f user.x 1
    as 65534 getxattr f user.b
    rename f g
    getxattr g user.b
    setxattr f user.x 1
    setxattr g trusted.t 1
    as 65534 getxattr g trusted.t
    setxattr g nonsense 1
    setxattr g user. 1
    """

    assert [line.rpartition(": ")[2] for line in Script(mirror).run(script)] == [
        "ok", "ok", "ok", "ok", "user.a user.b", "ENODATA", "ok", "b'other'", "ok", "ENODATA",
        "ok", "b'dir'", "ok", "ok", "f ctime", "EACCES", "b'two'", "ok", "b'two'", "ENOENT", "ok",
        "ENODATA", "ENOTSUP", "EINVAL",
    ]  # fmt: skip


def test_more_attributes_than_the_store_keeps_are_refused(mirror: Path) -> None:
    (mirror / "file").write_bytes(b"content")
    os.setxattr(mirror / "file", "user.small", b"x" * 100)

    assert refusal(lambda: os.setxattr(mirror / "file", "user.a", b"x" * 2000)) == errno.E2BIG
    assert os.listxattr(mirror / "file") == ["user.small"]


def test_acls_are_kept_and_heeded_in_a_mirror(mirror: Path) -> None:
    script = """
    write f
    chmod f 0640
    setfacl f u::rw-,u:65534:rw-,g::r--,m::rw-,o::---
    stat f mode
    as 65534 read f
    as 65533 read f
    chmod f 0600
    as 65534 read f
    chmod f 0660
    as 65534 read f
    setfacl f u::rw-,g::r--,o::r--
    stat f mode
    listxattr f
    mkdir d
    setfacl d u::rwx,u:65534:rwx,g::r-x,m::rwx,o::--- default
    open d/f CREAT|WRONLY 0640
    stat d/f mode
    chown d/f 1 1
    chmod d/f 0660
    as 65534 rewrite d/f abc
    mkdir d/e 0750
    listxattr d/e
    setfacl f u::rw-
    as 65534 setfacl f u::rwx,g::rwx,o::rwx
    """

    assert [line.rpartition(": ")[2] for line in Script(mirror).run(script)] == [
        "ok", "ok", "ok", "0o660", "'content'", "EACCES", "ok", "EACCES", "ok", "'content'",
        "ok", "0o644", "nothing", "ok", "ok", "ok", "0o640", "ok", "ok", "ok", "ok",
        "system.posix_acl_access system.posix_acl_default", "EINVAL", "EPERM",
    ]  # fmt: skip


def test_the_umask_does_not_count_beside_a_default_acl(mirror: Path, local: Path) -> None:
    assert_same(
        mirror,
        local,
        """
        mkdir d 0777
        mkdir d/before 0777
        setfacl d u::rwx,u:65534:rwx,g::rwx,m::rwx,o::rwx default
        mkdir d/e 0777
        mkdir d/e/f 0750
        write d/e/f/g
        mknod d/p fifo 0666
        open d/h CREAT|WRONLY 0620
        setfacl d/e u::rwx,g::r-x,o::--- default
        mkdir d/e/i 0777
        mkdir j 0777
        write j/k
        mknod j/p fifo 0666
        stat d/before mode
        stat d/e mode
        stat d/e/f mode
        stat d/e/f/g mode
        stat d/p mode
        stat d/h mode
        stat d/e/i mode
        stat j mode
        stat j/k mode
        stat j/p mode
        """,
    )


def test_a_hard_link_in_a_mirror_is_a_copy_with_one_link_of_its_own(mirror: Path) -> None:
    (mirror / "old").write_bytes(b"content")
    os.setxattr(mirror / "old", "user.a", b"1")
    (mirror / "old").chmod(0o640)
    (mirror / "open.tmp").write_bytes(b"staged")

    os.link(mirror / "old", mirror / "new")
    os.link(mirror / "open.tmp", mirror / "published")

    assert (mirror / "new").read_bytes() == b"content"
    assert os.getxattr(mirror / "new", "user.a") == b"1"
    assert stat.S_IMODE((mirror / "new").stat().st_mode) == 0o640
    assert [(mirror / name).stat().st_nlink for name in ("old", "new")] == [1, 1]
    (mirror / "old").write_bytes(b"changed")
    assert (mirror / "new").read_bytes() == b"content"
    assert (mirror / "published").read_bytes() == b"staged"
    assert refusal(lambda: os.link(mirror / "old", mirror / "new")) == errno.EEXIST


def test_fifos_sockets_and_devices_are_kept_in_a_mirror(
    mirror: Path, mirror_mount: Mounted, local: Path, tmp_path: Path
) -> None:
    assert_same(
        mirror,
        local,
        """
        stamp .
        mknod p fifo 0640
        moved .
        stat p type mode size nlink
        mknod s socket 0755
        stat s type mode
        mknod c char 0600 1:3
        stat c type mode rdev
        mknod b block 0660 8:1
        stat b type mode rdev
        mknod big char 0600 259:70000
        stat big rdev
        as 65534 mknod x fifo
        chmod . 0777
        as 65534:65533 mknod x fifo 0644
        stat x type uid gid mode
        as 65534 mknod y char 0644 1:3
        mknod p fifo
        mknod p/x fifo
        mknod n*256 fifo
        mknod missing/p fifo
        truncate p 3
        utimes c 3 4
        stat c times
        rename c c2
        stat c2 type rdev
        chown c2 4 5
        chmod c2 0111
        stat c2 type mode uid gid rdev
        link b b2
        stat b2 type mode rdev
        unlink p
        list
        """,
    )
    names = sorted(os.listdir(mirror))
    script = "\n".join(f"stat {name} type mode uid gid rdev" for name in names)
    before = Script(mirror).run(script)

    with mounted_anew(mirror_mount.path.parent / "store", tmp_path / "home", "mirror") as mount:
        assert Script(mount.path / mirror.name).run(script) == before


def test_a_mirror_is_restored_without_a_mount_as_it_was(tmp_path: Path) -> None:
    table = {"url": f"file://{tmp_path}/store", "kind": "mirror"}
    script = """
    stat . mode
    stat file type mode uid gid times
    getxattr file user.name
    getfacl file
    stat fifo type mode uid gid
    stat null type mode rdev
    readlink link
    getfacl below default
    read below/inner
    """
    (tmp_path / "store").mkdir()
    with gateway(tmp_path / "gateway", table) as made:
        made.mount()
        top = made.repository / "top"
        top.mkdir(mode=0o750)
        Script(top).run(
            """
            write file
            setxattr file user.name value
            setfacl file u::rw-,u:65534:rw-,g::---,m::rw-,o::---
            chown file 11 22
            utimes file 1 2000000000000000003
            mknod fifo fifo 0640
            mknod null char 0600 1:3
            symlink file link
            mkdir below
            write below/inner
            setfacl below u::rwx,g::---,o::--- default
            """
        )
        before = Script(top).run(script)
        made.umount()

        made.run("cp", "-r", "store:repository/top", str(tmp_path / "restored"))

    assert Script(tmp_path / "restored" / "top").run(script) == before
    assert all(": E" not in line for line in before)


def test_a_repository_shows_what_a_mirror_keeps_as_files(
    mirror: Path, mirror_mount: Mounted, tmp_path: Path
) -> None:
    os.mkfifo(mirror / "fifo", 0o640)

    with mounted_anew(mirror_mount.path.parent / "store", tmp_path / "home") as mount:
        assert (mount.path / mirror.name / "fifo").read_bytes() == b""


@contextmanager
def s3fs(server: SeaweedFS, bucket: str, path: Path) -> Iterator[None]:
    """Have s3fs show `bucket` at `path`."""
    path.mkdir()
    secret = path.with_name("passwd")
    secret.touch(mode=0o600)
    secret.write_text(f"{server.access_key}:{server.secret_key}\n")
    options = f"url={server.endpoint_url},passwd_file={secret},use_path_request_style,use_xattr"
    process = subprocess.Popen(["s3fs", bucket, str(path), "-f", "-o", options])
    try:
        until = time.monotonic() + READY_WITHIN
        while not path.is_mount():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        yield
    finally:
        subprocess.run(["fusermount3", "-uzq", str(path)], check=False)
        process.terminate()
        process.wait()


@pytest.mark.live
def test_s3fs_reads_what_a_mirror_keeps_and_a_mirror_what_s3fs_keeps(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    bucket = seaweedfs_server.bucket("mirror")
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
        "kind": "mirror",
    }
    other = tmp_path / "s3fs"
    with (
        gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made,
        s3fs(seaweedfs_server, bucket, other),
    ):
        os.mkfifo(other / "theirs")
        (other / "file").write_bytes(b"of s3fs")
        os.setxattr(other / "file", "user.theirs", b"\x00\xff")
        made.mount()
        (made.repository / "ours").write_bytes(b"of the gateway")
        os.setxattr(made.repository / "ours", "user.name", b"value")
        os.setxattr(made.repository / "ours", "user.other", b"\x00\xff")
        (made.repository / "ours").chmod(0o640)
        os.mkfifo(made.repository / "fifo")
        os.symlink("ours", made.repository / "link")

        assert os.getxattr(other / "ours", "user.name") == b"value"
        assert os.getxattr(other / "ours", "user.other") == b"\x00\xff"
        assert stat.S_IMODE((other / "ours").stat().st_mode) == 0o640
        assert stat.S_ISFIFO((other / "fifo").stat().st_mode)
        assert (other / "link").read_bytes() == b"of the gateway"
        assert os.getxattr(made.repository / "file", "user.theirs") == b"\x00\xff"
        assert stat.S_ISFIFO((made.repository / "theirs").stat().st_mode)

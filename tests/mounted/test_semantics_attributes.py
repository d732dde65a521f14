"""Modes, owners and times, as docs/semantics.md has them."""

import os
import stat
from functools import partial
from pathlib import Path

import pytest
from support.mounting import Mounted, mounted
from support.repositories import metadata, mounted_anew, on_disk, opened_store, shown
from support.syscalls import assert_same

pytestmark = [pytest.mark.mounted, pytest.mark.slow]


def test_chmod_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        stamp f
        chmod f 0111
        stat f mode
        moved f
        mkdir d
        chmod d 01777
        stat d mode
        symlink f l
        chmod l 0640
        stat f mode
        chmod missing 0644
        chmod f/x 0644
        chmod n*256 0644
        as 65534 chmod f 0777
        chown f 65534 65534
        as 65534 chmod f 04755
        stat f mode
        as 65534:65533 chmod f 02755
        stat f mode
        as 65533 chmod f 0644
        chown f 65534 65533
        as 65534:65534 chmod f 02755
        stat f mode
        as 65534:65533 chmod f 02755
        stat f mode
        chmod d 02775
        stat d mode
        symlink loop1 loop2
        symlink loop2 loop1
        chmod loop1 0644
        """,
    )


def test_set_id_bits_are_lost_as_on_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        chmod f 06777
        chown f 65534 65534
        stat f mode
        chmod f 06777
        as 65534 rewrite f
        stat f mode
        chmod f 06777
        as 65533 rewrite f
        stat f mode
        chmod f 06777
        rewrite f
        stat f mode
        chmod f 06777
        as 65533 truncate f 3
        stat f mode
        chmod f 06777
        truncate f 2
        stat f mode
        chmod f 06777
        as 65534 chown f -1 65534
        stat f mode
        chmod f 06555
        chown f 65534 65532
        stat f mode
        chmod f 06555
        chown f -1 -1
        stat f mode
        chmod f 02644
        chown f 65534 65532
        stat f mode
        mkdir d
        chmod d 06777
        chown d 65534 65532
        stat d mode uid gid
        """,
    )


def test_chown_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        stamp f
        chown f 123 456
        stat f uid gid
        moved f
        symlink f l
        chown l 124 457
        stat f uid gid
        stat l uid
        lchown l 7 8
        stat l uid gid
        stat f uid gid
        chown f 65534 65533
        as 65534:65533,65532 chown f 65534 65532
        stat f uid gid
        as 65534:65533 chown f 65534 65531
        as 65534:65533 chown f 65533 65533
        as 65533:65533 chown f 65533 65533
        as 65534:65533 chown f -1 65533
        stat f uid gid
        stamp f
        chown f -1 -1
        moved f
        mkdir d
        chown d 65534 65533
        stat d uid gid
        chown missing 1 1
        chown f/x 1 1
        """,
    )


def test_utimes_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        utimes f 1234567890123456789 -5000000001
        stat f times
        mkdir d
        utimes d 1 2
        stat d times
        utimes f 5000000000000000000 5000000000000000001
        stat f times
        stamp f
        utimes f 1 2
        moved f
        chown f 65534 65534
        chmod f 0444
        as 65534 utimes f 3 4
        as 65533 utimes f 3 4
        as 65534 now f
        as 65533 now f
        chmod f 0666
        as 65533 now f
        as 65533 utimes f 3 4
        utimes missing 1 2
        utimes f/x 1 2
        """,
    )


def test_times_move_as_on_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        stamp f
        rewrite f abc
        moved f
        stamp f
        open f RDONLY
        moved f
        stamp f
        read f
        moved f
        mkdir d
        stamp d
        write d/f
        moved d
        stamp d
        rewrite d/f abc
        moved d
        stamp d
        list d
        moved d
        stamp d
        mkdir d/e
        symlink x d/l
        moved d
        """,
    )


def test_modes_and_owners_are_heeded(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        mkdir d
        chmod d 0700
        write d/f
        as 65534 read d/f
        as 65534 access d X
        chmod d 0711
        as 65534 read d/f
        as 65534 list d
        chmod d 0755
        chmod d/f 0640
        as 65534 read d/f
        chown d/f 0 65533
        as 65534:65533 read d/f
        as 65534:65534,65533 read d/f
        as 65534:65533 rewrite d/f
        chmod d/f 0604
        as 65534:65533 read d/f
        as 65534 read d/f
        chmod d/f 0000
        read d/f
        access d/f RW
        access d/f X
        as 65534 write d/new
        """,
    )


EXACT = (1_234_567_890_123_456_789, -5_000_000_001)  # nanoseconds; access and modification


def test_times_read_back_exactly_on_files_directories_and_symlinks(either: Path) -> None:
    (either / "file").write_bytes(b"content")
    (either / "directory").mkdir()
    (either / "link").symlink_to("file")

    for name in ("file", "directory", "link"):
        os.utime(either / name, ns=EXACT, follow_symlinks=False)
        found = (either / name).lstat()
        assert (found.st_atime_ns, found.st_mtime_ns) == EXACT


def test_what_a_tool_sets_before_it_closes_goes_into_the_object(
    plain: Path, plain_mount: Mounted
) -> None:
    descriptor = os.open(plain / "file", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"content")
    os.fchmod(descriptor, 0o640)
    os.fchown(descriptor, 11, 22)
    os.utime(descriptor, ns=EXACT)
    os.close(descriptor)

    kept = metadata(plain_mount.path.parent / "store", f"{plain.name}/file")
    assert int(kept["mode"]) == stat.S_IFREG | 0o640
    assert (kept["uid"], kept["gid"]) == ("11", "22")
    assert kept["mtime"] == "-5.000000001"


def set_all(path: Path) -> None:
    """Set what can be set, once the file is stored."""
    path.chmod(0o640)
    os.chown(path, 11, 22)
    os.utime(path, ns=EXACT)


def is_as_set(path: Path) -> bool:
    found = path.stat()
    told = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns
    return told == (0o640, 11, 22, EXACT[1])


def test_what_is_set_later_stays_in_the_cache_of_a_repository(
    plain: Path, plain_mount: Mounted, tmp_path: Path
) -> None:
    (plain / "file").write_bytes(b"content")
    set_all(plain / "file")

    assert is_as_set(plain / "file")
    with mounted_anew(plain_mount.path.parent / "store", tmp_path / "home") as mount:
        assert not is_as_set(mount.path / plain.name / "file")


def test_what_is_set_later_is_kept_with_the_object_in_a_mirror(
    mirror: Path, mirror_mount: Mounted, tmp_path: Path
) -> None:
    (mirror / "file").write_bytes(b"content")
    (mirror / "large").write_bytes(b"x" * 40_000_000)
    (mirror / "directory").mkdir()
    for name in ("file", "large", "directory"):
        set_all(mirror / name)

    with mounted_anew(mirror_mount.path.parent / "store", tmp_path / "home", "mirror") as mount:
        for name in ("file", "large", "directory"):
            assert is_as_set(mount.path / mirror.name / name)
        assert (mount.path / mirror.name / "file").read_bytes() == b"content"


def test_what_others_keep_with_an_object_stays_when_its_mode_changes(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = tmp_path / "store"
    with opened_store(store) as provider:
        provider.put("file", b"content", {"colour": "green", "mode": "33188"})

    with mounted_anew(store, tmp_path / "home", "mirror") as mount:
        (mount.path / "file").chmod(0o600)

    assert metadata(store, "file")["colour"] == "green"
    assert int(metadata(store, "file")["mode"]) == stat.S_IFREG | 0o600


def test_an_open_file_stays_readable_while_its_mode_changes_in_a_mirror(mirror: Path) -> None:
    (mirror / "file").write_bytes(b"content" * 1000)
    with (mirror / "file").open("rb") as file:
        (mirror / "file").chmod(0o600)

        assert file.read() == b"content" * 1000
    with (mirror / "file").open("r+b") as file:
        os.fchmod(file.fileno(), 0o640)
        file.write(b"CONTENT")
    assert (mirror / "file").read_bytes() == b"CONTENT" + b"content" * 999
    assert stat.S_IMODE((mirror / "file").stat().st_mode) == 0o640


def test_the_top_keeps_its_attributes_while_it_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    make = partial(shown, tmp_path, on_disk(tmp_path), "all")
    with mounted(make, tmp_path) as mount:
        set_all(mount.path / "repository")

        assert is_as_set(mount.path / "repository")
        (mount.path / "repository" / "file").touch()
        assert (mount.path / "repository").stat().st_mtime_ns > EXACT[0]


def test_a_mount_runs_no_set_id_programs_and_opens_no_devices(plain_mount: Mounted) -> None:
    flags = os.statvfs(plain_mount.path).f_flag

    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV


def test_statfs_tells_the_capacity_less_what_is_stored(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    make = partial(shown, tmp_path, on_disk(tmp_path, capacity=10_000_000), "repository")
    with mounted(make, tmp_path) as mount:
        (mount.path / "file").write_bytes(bytes(4_000_000))
        found = os.statvfs(mount.path)

        assert found.f_blocks * found.f_frsize == pytest.approx(10_000_000, abs=8192)
        assert found.f_bavail * found.f_frsize == pytest.approx(6_000_000, abs=8192)

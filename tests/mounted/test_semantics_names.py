"""Names and directories, as docs/semantics.md has them."""

import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from support.mounting import Mounted, mounted
from support.repositories import metadata, mounted_anew, small_parts
from support.syscalls import Script, assert_same, refusal
from support.writing import CONFIG, memory, opened

from backgate.fs.tree import Tree

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

RENAME = """
write a
write b other
stamp a .
rename a c
moved .
list
stat c size nlink
rename c b
read b
list
mkdir d
rename b d
rename d b
mkdir e
write e/x
rename d e
rmdir d
mkdir d
rename e d
list d
list
rename d d/sub
rename d d
rename b b
rename missing x
rename b missing/x
rename b b/x
rename d/. x
rename b n*256
rename n*256 b
write t
rename b t NOREPLACE
rename b fresh NOREPLACE
rename fresh b
mkdir s
chmod s 01777
as 65534 write s/f
as 65533 rename s/f s/g
as 65534 rename s/f s/g
chmod . 0777
as 65533 write mine
as 65533 rename mine s/g
chmod . 0755
as 65534 rename s/g out
symlink b l
rename l l2
readlink l2
read b
rename l2 d/l2
mkdir m
chown m 65534 65534
mkdir m/sub
as 65534 rename m/sub m/sub2
mkdir m2
chmod m2 0777
as 65534 rename m/sub2 m2/sub2
stat m2 type

mkdir a
mkdir bb
write a/f
mkdir a/d
symlink x a/l
stamp a bb a/f
rename a/f bb/f
moved a bb
stamp bb/f a bb
rename bb/f bb/g
moved bb
rename a/d a/d2
rename a/l a/l2
list a

write tt
stamp tt
rename tt g
rename g tt
moved tt
mkdir dd
write dd/f
stamp dd
rename dd ee
rename ee dd
moved dd
symlink x ll
stamp ll
rename ll mm
rename mm ll
moved ll
"""

RENAME_OVER = """
write f
mkdir d
symlink f l
write f2 two
rename f2 l
read l
stat l type
read f
symlink d dl
write f3 three
rename f3 dl
read dl
list d
write q
rename q f
stat f type
write g
rename g q
rename g f
stat f type
mkdir e
rename e d
rename d f
rename f d
symlink nowhere n
rename n d
rename d n
rename n f
readlink f
"""

RENAME_DEEP = """
mkdir a
mkdir a/b
mkdir a/b/c
write a/b/c/f deep
rename a z
read z/b/c/f
rename z/b y
read y/c/f
mkdir z/b
write z/b/other
rename y z/b
rename y/c z/b/c
list z/b
list y
rmdir y
rename z/b/c/f z/b/other
read z/b/other
symlink z/b link
list link
read link/other
rename link link2
read link2/other
rmdir link2
unlink link2
mkdir q
rename q z/b/c
rename z/b/c z/b/c/q
rename z z/b
rename . x
rename z/.. x
rename z/b/.. x
rmdir z/b/..
rmdir z/b/.
unlink z/.
mkdir z/b/c/..
"""

RENAME_STICKY = """
mkdir s
chmod s 01777
mkdir t
chmod t 0777
as 65534 write s/a
as 65534 mkdir s/d
as 65534 symlink x s/l
as 65533 write t/b
as 65533 mkdir t/e
as 65533 rename t/b s/a
as 65533 rename t/e s/d
as 65533 rename s/a t/x
as 65533 unlink s/l
as 65533 rmdir s/d
chown s 65533 65533
as 65533 rename s/a t/x
as 65533 unlink s/l
as 65533 rename s/d t/d
as 65533 rmdir s/d
list s
list t
"""

CREATE = """
mkdir d
chmod d 0777
stamp d
as 65534:65533 open d/f CREAT|WRONLY 0751
stat d/f type mode uid gid size nlink
moved d
open d/f CREAT|EXCL|WRONLY
open d CREAT|WRONLY
open d WRONLY
open d RDONLY
open d/f/g CREAT|WRONLY
open n*255 CREAT|WRONLY
open n*256 CREAT|WRONLY
open n*256 RDONLY
open missing/x CREAT|WRONLY
write g abcdef
stamp g
open g WRONLY|TRUNC
moved g
stat g size
open g RDONLY|TRUNC
write g abcdef
open g RDONLY|TRUNC
stat g size
chmod g 0400
chown g 65534 65534
as 65534 open g WRONLY
as 65534 open g RDONLY|TRUNC
as 65534 open g RDONLY
as 65533 open g RDONLY
chmod d 0555
as 65534 open d/new CREAT|WRONLY
chmod d 0444
as 65534 open d/f RDONLY
symlink loop1 loop2
symlink loop2 loop1
open loop1 RDONLY
open loop1/x RDONLY
symlink f2 dang
open dang RDONLY
open dang CREAT|EXCL|WRONLY
open dang CREAT|WRONLY
stat f2 type
open dang WRONLY|NOFOLLOW
open g DIRECTORY|RDONLY
list
"""

CREATE_WITH_MODES = """
mkdir d
chmod d 0777
as 65534 open d/f CREAT|RDONLY 0
stat d/f mode
as 65534 open d/f RDONLY
as 65534 open d/f WRONLY
as 65534 open d/g CREAT|WRONLY 0444
as 65534 open d/g WRONLY
as 65534 open d/g WRONLY|TRUNC
as 65534 open d/g RDONLY
as 65534 open d/h CREAT|RDWR 07777
stat d/h mode
open d/f RDWR
open d RDWR
open d RDONLY|DIRECTORY
open d CREAT|RDONLY
open d CREAT|DIRECTORY|RDONLY
open d/f/ RDONLY
open d/new/ CREAT|WRONLY
hold d/f RDWR|APPEND
fwrite d/f abc 0
fwrite d/f def 0
fread d/f
rename d/f d/ff
fwrite d/f ghi
fread d/f
read d/ff
unlink d/ff
fread d/f
fchmod d/f 0123
fstat d/f mode nlink size
"""

CREATE_IN_VAIN = """
write f
mkdir d
stamp f d
as 65534 chmod f 0777
as 65534 chown f 1 1
as 65534 utimes f 1 1
as 65534 truncate f 1
chmod d/x 0644
mkdir d/.
rmdir .
unlink d
rename d f
rename f d
moved f d
stamp d
open d/f WRONLY
unlink d/f
rmdir d/f
rename d/f d/g
moved d
"""


@pytest.mark.parametrize("script", [CREATE, CREATE_WITH_MODES, CREATE_IN_VAIN])
def test_creating_follows_the_rules_of_a_local_file_system(
    either: Path, local: Path, script: str
) -> None:
    assert_same(either, local, script)


def test_mkdir_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        stamp .
        mkdir d 0751
        moved .
        stat d type mode uid gid
        as 65534 mkdir d/x
        chmod d 0777
        as 65534:65533 mkdir d/x 0700
        stat d/x mode uid gid
        mkdir d
        write f
        mkdir f
        mkdir f/x
        mkdir missing/x
        mkdir n*256
        mkdir n*255
        symlink nowhere l
        mkdir l
        chmod d 03777
        chown d 0 77
        as 65534:65533 mkdir d/s 0755
        stat d/s mode uid gid
        as 65534:65533 open d/sf CREAT|WRONLY 02755
        stat d/sf mode uid gid
        rmdir n*256
        """,
    )


def test_rmdir_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        mkdir d
        mkdir d/e
        stamp d
        rmdir d/e
        moved d
        write d/f
        rmdir d
        unlink d/f
        rmdir d
        rmdir d
        write f
        rmdir f
        rmdir f/x
        mkdir t
        chmod t 01777
        as 65534 mkdir t/mine
        as 65533 rmdir t/mine
        as 65534 rmdir t/mine
        mkdir d
        chmod d 0555
        mkdir d/x
        as 65534 rmdir d/x
        rmdir d/.
        rmdir d/..
        rmdir n*256
        symlink d l
        rmdir l
        list
        """,
    )


def test_unlink_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        mkdir d
        write d/f
        stamp d
        unlink d/f
        moved d
        unlink d/f
        unlink d
        write f
        unlink f/x
        unlink n*256
        symlink f l
        unlink l
        read f
        chmod d 01777
        as 65534 write d/mine
        as 65533 unlink d/mine
        as 65534 unlink d/mine
        hold f RDWR
        unlink f
        fstat f nlink size
        fwrite f longer-content
        fread f
        ftruncate f 3
        fread f
        fchmod f 0600
        fstat f mode
        list
        """,
    )


@pytest.mark.parametrize("script", [RENAME, RENAME_OVER, RENAME_DEEP, RENAME_STICKY])
def test_rename_follows_the_rules_of_a_local_file_system(
    either: Path, local: Path, script: str
) -> None:
    assert_same(either, local, script)


def test_symlinks_follow_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        stamp .
        symlink target l
        moved .
        stat l type mode size nlink uid
        readlink l
        symlink x l
        write f
        symlink x f
        symlink x f/y
        symlink x missing/y
        symlink x n*256
        as 65534 symlink x m
        mkdir d
        stamp l
        lchown l 5 6
        moved l
        readlink f
        readlink d
        readlink missing
        utimes l 5 7
        stat l times
        open l RDONLY
        """,
    )


def store_of(mount: Mounted) -> Path:
    """Return where the local store of a mount is."""
    return mount.path.parent / "store"


def test_exclusive_creation_never_opens_what_another_has_just_made(plain: Path) -> None:
    def create(number: int) -> int:
        made = 0
        for name in range(50):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(plain / f"{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                made += 1
        return made

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(create, range(4))) == 50


def test_a_directory_is_not_renamed_onto_one_that_is_not_empty(either: Path) -> None:
    (either / "free.tmp").mkdir()
    (either / "free.tmp" / "owner").touch()
    (either / "lock.exclusive").mkdir()
    (either / "lock.exclusive" / "other").touch()

    def take() -> None:
        os.rename(either / "free.tmp", either / "lock.exclusive")

    assert refusal(take) == errno.ENOTEMPTY
    assert os.listdir(either / "lock.exclusive") == ["other"]
    (either / "lock.exclusive" / "other").unlink()
    take()
    assert os.listdir(either / "lock.exclusive") == ["owner"]


def test_names_are_not_exchanged(plain: Path) -> None:
    script = """
    write a one
    write b two
    rename a b EXCHANGE
    rename a c WHITEOUT
    """

    assert Script(plain).run(script)[2:] == [
        "rename a b EXCHANGE: EINVAL",
        "rename a c WHITEOUT: EINVAL",
    ]


def test_a_path_is_no_longer_than_a_key_of_the_store(tmp_path: Path) -> None:
    with mounted(partial(small_parts, tmp_path, CONFIG), tmp_path) as mount:
        directory = mount.path
        for _ in range(4):
            directory = directory / ("n" * 250)
            directory.mkdir()
        (directory / ("n" * 19)).touch()

        assert len(os.fsencode((directory / ("n" * 19)).relative_to(mount.path))) == 1023
        assert refusal((directory / ("n" * 30)).touch) == errno.ENAMETOOLONG
        assert refusal((directory / ("n" * 30)).mkdir) == errno.ENAMETOOLONG


def test_a_name_that_is_not_utf_8_is_refused(plain: Path) -> None:
    name = os.fsencode(plain) + b"/\xff"

    assert refusal(lambda: os.open(name, os.O_CREAT | os.O_WRONLY)) == errno.EILSEQ
    assert refusal(lambda: os.mkdir(name)) == errno.EILSEQ


def test_the_name_of_the_gateway_itself_is_refused(plain_mount: Mounted) -> None:
    assert refusal((plain_mount.path / ".backgate").mkdir) == errno.EPERM
    assert not (plain_mount.path / ".backgate").exists()


def test_keys_that_are_no_paths_are_shown_under_names_of_their_own(tmp_path: Path) -> None:
    shown_as = {
        "a//b": "a/%=/b",
        "c/": "c/%=",
        "./x": "%=%2E/x",
        "d": "%=d",
        "d/e": "d/e",
        "%=x": "%=%25=x",
    }

    @asynccontextmanager
    async def made(_happened: Callable[[str, bytes], None]) -> AsyncIterator[Tree]:
        store = memory()
        for key in shown_as:
            store.put(key, key.encode())
        async with opened(tmp_path / "gateway", store) as repository:
            yield repository.tree

    with mounted(made, tmp_path) as mount:
        for key, name in shown_as.items():
            assert (mount.path / name).read_bytes() == key.encode()
        assert sorted(os.listdir(mount.path)) == ["%=%25=x", "%=%2E", "%=d", "a", "c", "d"]


def test_an_empty_directory_is_a_marker_object(plain: Path, plain_mount: Mounted) -> None:
    (plain / "empty").mkdir(mode=0o750)

    kept = metadata(store_of(plain_mount), f"{plain.name}/empty/")
    assert int(kept["mode"]) == stat.S_IFDIR | 0o750


def test_a_directory_stays_when_the_last_name_in_it_goes(
    tmp_path: Path,
) -> None:
    (tmp_path / "store" / "directory").mkdir(parents=True)
    (tmp_path / "store" / "directory" / "file").write_bytes(b"content")

    with mounted_anew(tmp_path / "store", tmp_path / "home") as mount:
        (mount.path / "directory" / "file").unlink()

        assert os.listdir(mount.path / "directory") == []


def test_a_symlink_is_a_small_object_as_s3fs_stores_it(plain: Path, plain_mount: Mounted) -> None:
    os.symlink("the/target", plain / "link")

    store, key = store_of(plain_mount), f"{plain.name}/link"
    assert (store / key).read_bytes() == b"the/target"
    assert int(metadata(store, key)["mode"]) == stat.S_IFLNK | 0o777


def test_a_directory_has_one_link_whatever_is_in_it(plain: Path) -> None:
    (plain / "directory" / "below").mkdir(parents=True)

    assert (plain / "directory").stat().st_nlink == 1


def test_an_open_directory_is_listed_after_it_was_renamed(plain: Path) -> None:
    (plain / "old").mkdir()
    (plain / "old" / "file").touch()
    descriptor = os.open(plain / "old", os.O_RDONLY)
    try:
        os.rename(plain / "old", plain / "new")

        assert os.listdir(descriptor) == ["file"]
    finally:
        os.close(descriptor)

"""Reading a mount through the kernel: names, attributes, bytes, and what is not asked twice."""

import errno
import mmap
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.dict_tree import DictTree, FrozenTree, Node
from support.mounting import Mounted, mounted

from backgate.fs import forgetting
from backgate.fs.root_tree import RootTree
from backgate.fs.running import running
from backgate.fs.tree import Tree

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

MANY = 100_000
BIG = bytes(range(256)) * 4096 * 9  # 9 MiB, so that segments are read ahead
WRITER = [b"", b"user.origin", b"tape 7"]
ACL = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff \0\x04\0\xff\xff\xff\xff"


def frozen(happened: Callable[[str, bytes], None]) -> Tree:
    tree = DictTree()
    tree.happened = happened
    tree.add_file("dir/hello", b"hello\n", mode=0o640)
    tree.add_file("dir/empty")
    tree.add_file("big", BIG)
    tree.add("link", Node(stat.S_IFLNK | 0o777, target=b"dir/hello"))
    shared = tree.add_file("first-name", b"shared")
    shared.nlink = 2
    tree.add("dir/second-name", shared)
    odd = tree.add_file("odd", b"x", mode=0o4755)
    odd.uid, odd.gid, odd.mtime_ns, odd.atime_ns = 12, 34, -1_500_000_000, 987_654_321
    odd.xattrs = {b"user.origin": b"tape 7", b"system.posix_acl_access": ACL}
    tree.add("pipe", Node(stat.S_IFIFO | 0o600))
    tree.add_file("näme\nwith lines")
    return FrozenTree(tree)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    with mounted(frozen, tmp_path) as made:
        yield made


def test_every_attribute_arrives(mount: Mounted) -> None:
    found = os.lstat(mount.path / "odd")

    assert found.st_mode == stat.S_IFREG | 0o4755
    assert (found.st_uid, found.st_gid, found.st_size, found.st_nlink) == (12, 34, 1, 1)
    assert (found.st_mtime_ns, found.st_atime_ns) == (-1_500_000_000, 987_654_321)
    assert found.st_blocks == 1
    assert stat.S_ISFIFO(os.lstat(mount.path / "pipe").st_mode)


def test_a_listing_is_whole_and_has_the_dots(mount: Mounted) -> None:
    names = subprocess.run(["ls", "-a", mount.path / "dir"], capture_output=True, text=True)

    assert names.stdout.split() == [".", "..", "empty", "hello", "second-name"]
    assert "näme\nwith lines" in os.listdir(mount.path)


def test_bytes_are_read_through_a_symlink(mount: Mounted) -> None:
    assert (mount.path / "link").read_bytes() == b"hello\n"
    assert os.readlink(mount.path / "link") == "dir/hello"
    assert (mount.path / "dir" / "empty").read_bytes() == b""


def test_hard_links_are_one_inode(mount: Mounted) -> None:
    first, second = mount.path / "first-name", mount.path / "dir" / "second-name"

    assert first.stat().st_nlink == 2
    assert first.samefile(second)


def test_xattrs_arrive_with_acls_as_they_were(mount: Mounted) -> None:
    odd = mount.path / "odd"

    assert set(os.listxattr(odd)) == {"user.origin", "system.posix_acl_access"}
    assert os.getxattr(odd, "user.origin") == b"tape 7"
    assert os.getxattr(odd, "system.posix_acl_access") == ACL
    with pytest.raises(OSError) as missing:
        os.getxattr(odd, "user.other")
    assert missing.value.errno == errno.ENODATA
    assert os.listxattr(mount.path / "big") == []


def test_a_tree_that_never_changes_is_asked_once(mount: Mounted) -> None:
    for _ in range(3):
        assert (mount.path / "big").read_bytes() == BIG
        assert not (mount.path / "absent").exists()
    calls = mount.happened()

    assert calls.count("child big") == 1
    assert calls.count("child absent") == 1
    reads = calls.count("read big")
    assert reads < 9 * 1024 // 128 + 20  # once over, however it was cut


def test_mapped_memory_and_direct_reads_show_the_same_bytes(mount: Mounted) -> None:
    with open(mount.path / "big", "rb") as file, mmap.mmap(file.fileno(), 0, prot=1) as view:
        assert view[:] == BIG
        assert os.pread(file.fileno(), 5000, 1_000_001) == BIG[1_000_001:1_005_001]
        assert os.pread(file.fileno(), 5000, len(BIG) - 3) == BIG[-3:]
        assert os.pread(file.fileno(), 5000, len(BIG) + 3) == b""


def test_many_readers_at_once_each_get_their_bytes(mount: Mounted) -> None:
    wrong: list[int] = []

    def read(start: int) -> None:
        with open(mount.path / "big", "rb", buffering=0) as file:
            wrong.extend(
                offset
                for offset in range(start, len(BIG), 700_001)
                if os.pread(file.fileno(), 100_000, offset) != BIG[offset : offset + 100_000]
            )

    readers = [threading.Thread(target=read, args=(start * 1000,)) for start in range(16)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert wrong == []


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "new").write_bytes(b""),
        lambda path: (path / "big").open("r+b"),
        lambda path: (path / "big").unlink(),
        lambda path: (path / "dir").rmdir(),
        lambda path: (path / "new").mkdir(),
        lambda path: (path / "big").rename(path / "new"),
        lambda path: (path / "big").chmod(0o600),
        lambda path: os.truncate(path / "big", 0),
        lambda path: os.symlink("x", path / "new"),
        lambda path: os.mkfifo(path / "new"),
        lambda path: os.utime(path / "big"),
        lambda path: os.setxattr(path / "big", "user.x", b""),
        lambda path: os.removexattr(path / "odd", "user.origin"),
    ],
)
def test_nothing_can_be_changed(mount: Mounted, change: Callable[[Path], object]) -> None:
    with pytest.raises(OSError) as refused:
        change(mount.path)

    assert refused.value.errno == errno.EROFS


def test_a_read_only_mount_is_so_for_the_kernel_too(tmp_path: Path) -> None:
    with mounted(frozen, tmp_path, is_read_only=True) as mount:
        assert os.statvfs(mount.path).f_flag & os.ST_RDONLY
        with pytest.raises(OSError) as refused:
            (mount.path / "new").mkdir()

        assert refused.value.errno == errno.EROFS
        assert "make_directory new" not in mount.happened()


def test_trees_continue_in_one_another(tmp_path: Path) -> None:
    def both(happened: Callable[[str, bytes], None]) -> Tree:
        writable = DictTree()
        writable.add_file("object", b"in the store")
        return RootTree({b"repository": writable, b"backups": frozen(happened)})

    with mounted(both, tmp_path) as mount:
        (mount.path / "repository" / "new").write_bytes(b"written")

        assert (mount.path / "repository" / "new").read_bytes() == b"written"
        assert (mount.path / "backups" / "dir" / "hello").read_bytes() == b"hello\n"
        assert os.getxattr(mount.path / "backups" / "odd", "user.origin") == b"tape 7"
        assert os.listxattr(mount.path / "repository" / "object") == []
        assert os.statvfs(mount.path).f_bavail > 0
        with pytest.raises(OSError) as refused:
            os.setxattr(mount.path / "repository" / "object", "user.x", b"")
        assert refused.value.errno == errno.EOPNOTSUPP
        with pytest.raises(OSError) as crossing:
            os.rename(mount.path / "repository" / "object", mount.path / "backups" / "object")
        assert crossing.value.errno == errno.EROFS


def test_a_directory_of_100000_names_is_listed_whole(tmp_path: Path) -> None:
    names = [f"{number:06}" for number in range(MANY)]

    def many(happened: Callable[[str, bytes], None]) -> Tree:
        tree = DictTree()
        tree.happened = happened
        for name in names:
            tree.top.children[name.encode()] = Node(stat.S_IFREG | 0o644)
        return FrozenTree(tree)

    with mounted(many, tmp_path) as mount:
        found = os.listdir(mount.path)
        sizes = {entry.stat().st_size for entry in os.scandir(mount.path)}

        assert sorted(found) == names
        assert sizes == {0}
        lookups = sum(call.startswith("child ") for call in mount.happened())
        assert lookups < MANY // 10  # attributes came with the names; some were forgotten again


def test_a_listing_goes_on_while_its_names_are_removed(tmp_path: Path) -> None:
    def writable(happened: Callable[[str, bytes], None]) -> Tree:
        tree = DictTree()
        for number in range(5000):
            tree.add_file(f"{number:04}")
        return tree

    with mounted(writable, tmp_path) as mount:
        removed = 0
        with os.scandir(mount.path) as entries:
            for entry in entries:
                os.unlink(entry.path)
                removed += 1

        assert removed == 5000
        assert os.listdir(mount.path) == []


def test_the_kernel_is_made_to_forget_when_it_knows_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MANY": 2000, "ENOUGH": 1000, "TOO_MANY": 2500, "BATCH": 100}.items():
        monkeypatch.setattr(forgetting, name, value)

    def many(happened: Callable[[str, bytes], None]) -> Tree:
        tree = DictTree()
        for directory in range(40):
            for number in range(250):
                tree.add_file(f"{directory}/{number}", b"x")
        return FrozenTree(tree)

    with mounted(many, tmp_path, runtime=tmp_path) as mount:
        (control,) = running([tmp_path])
        with open(mount.path / "0" / "0") as held:
            found = [path for path in mount.path.rglob("*") if path.is_file()]

            assert len(found) == 10_000
            mount.wait_for(lambda: control.ask("status")["inodes"] < 3000)
            assert held.read() == "x"
        assert (mount.path / "0" / "1").read_bytes() == b"x"

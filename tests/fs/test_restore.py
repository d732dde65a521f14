"""A restored tree equals what was backed up, and nothing in it can harm what is around it."""

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from support.compare import differences
from support.dict_tree import DictTree, Node
from support.folder_tree import FolderTree
from support.trees import make_odd_tree, set_xattr

from backgate.fs import restore as restoring
from backgate.fs.local import partial_name
from backgate.fs.restore import Restore, Restored
from backgate.fs.tree import Entry, Tree
from backgate.gateway.errors import Damaged, FileError, Unreachable
from backgate.gateway.units import MIB

NOBODY = 65534


class Copy:
    """What one restore did, and what it complained of."""

    def __init__(self) -> None:
        self.complaints: dict[bytes, str] = {}
        self.advanced = 0
        self.done = Restored()

    def complain(self, path: bytes, error: Exception) -> None:
        self.complaints[path] = str(error)

    def advance(self, size: int) -> None:
        self.advanced += size


async def copied(tree: Tree, top: Path, entries: list[Entry] | None = None) -> Copy:
    top.mkdir(exist_ok=True)
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    copy = Copy()
    try:
        async with trio.open_nursery() as nursery:
            restore = Restore(nursery, descriptor, copy.complain, copy.advance)
            await restore.copy((tree, await tree.root()), entries)
            copy.done = restore.done
    finally:
        os.close(descriptor)
    return copy


@pytest.mark.slow
async def test_an_odd_tree_is_restored_exactly(tmp_path: Path) -> None:
    odd = make_odd_tree(tmp_path / "odd")
    os.mkfifo(odd / "fifo", 0o640)
    set_xattr(odd / "small", "user.colour", b"blue\0green")
    set_xattr(odd / "deep", "user.on-a-directory", b"")
    files = sum(len(names) for _, _, names in os.walk(odd))

    copy = await copied(FolderTree(odd), tmp_path / "new")

    assert copy.complaints == {}
    os.chmod(tmp_path / "new", odd.stat().st_mode)
    os.utime(tmp_path / "new", ns=(odd.stat().st_atime_ns, odd.stat().st_mtime_ns))
    assert differences(odd, tmp_path / "new") == []
    assert copy.done.files == files
    assert (tmp_path / "new/sparse").stat().st_blocks * 512 < MIB
    assert os.getxattr(tmp_path / "new/small", "user.colour") == b"blue\0green"


@pytest.mark.slow
async def test_a_second_run_copies_nothing_and_leaves_all_as_it_is(tmp_path: Path) -> None:
    odd = make_odd_tree(tmp_path / "odd")
    tree = FolderTree(odd)
    await copied(tree, tmp_path / "new")
    tree.opened.clear()
    os.chmod(tmp_path / "new/small", 0o600)

    copy = await copied(tree, tmp_path / "new")

    assert tree.opened == []
    assert copy.done.skipped == copy.done.files - 2 - 2  # symlinks, and second names of a file
    assert stat.S_IMODE((tmp_path / "new/small").stat().st_mode) == 0o4751
    assert (tmp_path / "new/random").stat().st_nlink == 3


async def test_only_the_chosen_entries_are_copied(tmp_path: Path) -> None:
    tree = DictTree()
    tree.add_file("a/one", b"1")
    tree.add_file("b/two", b"2")
    entry = await tree.child(await tree.root(), b"a")

    await copied(tree, tmp_path / "new", [entry.named(b"renamed")])

    assert sorted(os.listdir(tmp_path / "new")) == ["renamed"]
    assert (tmp_path / "new/renamed/one").read_bytes() == b"1"


async def test_a_file_that_was_cut_off_is_completed_from_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "PIECE", 500_000)
    monkeypatch.setattr(restoring, "REWRITTEN", 100_000)
    content = os.urandom(8 * MIB)
    tree = DictTree()
    tree.add_file("file", content)
    read = []

    async def fail_late(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "read":
            read.append(name)
            if len(read) > 3:
                raise Unreachable("gone")

    tree.hinder = fail_late
    with suppress(BaseExceptionGroup, Unreachable):
        await copied(tree, tmp_path / "new")
    partial = (
        tmp_path / "new" / os.fsdecode(partial_name(await tree.child(await tree.root(), b"file")))
    )
    arrived = partial.stat().st_size
    assert not (tmp_path / "new/file").exists()
    tree.hinder = DictTree().hinder

    copy = await copied(tree, tmp_path / "new")

    assert 500_000 <= arrived < len(content)
    assert (tmp_path / "new/file").read_bytes() == content
    assert not partial.exists()
    assert copy.advanced == len(content)


async def test_a_store_that_cannot_be_asked_ends_the_copy(tmp_path: Path) -> None:
    tree = DictTree()
    tree.add_file("file", b"1")

    async def fail(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "open":
            raise Unreachable("gone")

    tree.hinder = fail
    with pytest.RaisesGroup(pytest.RaisesGroup(Unreachable)):
        await copied(tree, tmp_path / "new")


async def test_a_damaged_file_is_complained_of_and_the_others_are_copied(tmp_path: Path) -> None:
    tree = DictTree()
    for name in ("a/good", "bad", "good"):
        tree.add_file(name, b"content")

    async def damage(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "read" and name == b"bad":
            raise Damaged("pack-1", 17, "MAC is wrong")

    tree.hinder = damage
    copy = await copied(tree, tmp_path / "new")

    assert copy.complaints == {b"bad": "pack-1 at byte 17: MAC is wrong"}
    assert copy.done.failed == 1
    assert (tmp_path / "new/a/good").read_bytes() == b"content"
    assert sorted(os.listdir(tmp_path / "new")) == ["a", "good"]


async def test_a_directory_that_cannot_be_listed_is_complained_of(tmp_path: Path) -> None:
    tree = DictTree()
    tree.add_file("bad/file", b"")
    tree.add_file("good/file", b"")

    async def damage(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "children" and name == b"bad":
            raise Damaged("tree-1", None, "not JSON")

    tree.hinder = damage
    copy = await copied(tree, tmp_path / "new")

    assert copy.complaints == {b"bad": "tree-1: not JSON"}
    assert (tmp_path / "new/good/file").exists()


async def test_a_symlink_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new/directory").symlink_to(tmp_path / "outside")
    (tmp_path / "new/file").symlink_to(tmp_path / "outside/file")
    tree = DictTree()
    tree.add_file("directory/inside", b"1")
    tree.add_file("file", b"2")

    copy = await copied(tree, tmp_path / "new")

    assert list(copy.complaints) == [b"directory"]
    assert os.listdir(tmp_path / "outside") == []
    assert not (tmp_path / "new/file").is_symlink()
    assert (tmp_path / "new/file").read_bytes() == b"2"


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b"a\0b", b"../outside"])
async def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: bytes) -> None:
    tree = DictTree()
    tree.top.children[name] = Node(stat.S_IFREG | 0o644, data=bytearray(b"evil"))
    tree.add_file("good", b"1")

    copy = await copied(tree, tmp_path / "new")

    assert len(copy.complaints) == 1
    assert os.listdir(tmp_path / "new") == ["good"]
    assert sorted(os.listdir(tmp_path)) == ["new"]


async def test_directories_without_end_are_given_up(tmp_path: Path) -> None:
    tree = DictTree()
    tree.top.children[b"d"] = tree.top

    copy = await copied(tree, tmp_path / "new")

    assert len(copy.complaints) == 1
    assert "directories in one another" in next(iter(copy.complaints.values()))


async def test_a_time_that_no_clock_can_show_is_complained_of(tmp_path: Path) -> None:
    tree = DictTree()
    tree.add_file("file", b"1").mtime_ns = 2**200
    tree.add_file("good", b"1")

    copy = await copied(tree, tmp_path / "new")

    assert list(copy.complaints) == [b"file"]
    assert (tmp_path / "new/good").exists()


async def test_a_source_of_another_size_than_announced_is_damaged(tmp_path: Path) -> None:
    tree = DictTree()
    node = tree.add_file("file", b"12345")

    async def grow(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "open":
            node.data += b"6"

    tree.hinder = grow
    copy = await copied(tree, tmp_path / "new")

    assert copy.complaints == {b"file": "file: is 6 bytes long where 5 were announced"}
    assert not (tmp_path / "new/file").exists()


async def test_two_copies_of_one_file_do_not_mix(tmp_path: Path) -> None:
    tree = DictTree()
    tree.add_file("file", b"1")
    both_open = trio.Event()

    async def wait(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "read":
            await both_open.wait()

    tree.hinder = wait
    results = []

    async def run() -> None:
        results.append(await copied(tree, tmp_path / "new"))
        both_open.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(run)

    assert [len(result.complaints) for result in results] == [1, 0]
    assert (tmp_path / "new/file").read_bytes() == b"1"


async def test_a_link_waits_for_the_name_made_first(tmp_path: Path) -> None:
    tree = DictTree()
    node = tree.add_file("a", b"content")
    node.nlink = 2
    tree.add("b/c", node)

    await copied(tree, tmp_path / "new")

    assert os.path.samefile(tmp_path / "new/a", tmp_path / "new/b/c")


async def test_a_link_whose_first_name_failed_is_copied(tmp_path: Path) -> None:
    tree = DictTree()
    node = tree.add_file("a", b"content")
    node.nlink = 2
    tree.add("b", node)
    failures = []

    async def fail_once(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "open" and not failures:
            failures.append(name)
            raise FileError(errno.EIO, name)

    tree.hinder = fail_once
    copy = await copied(tree, tmp_path / "new")

    assert len(copy.complaints) == 1
    assert len(os.listdir(tmp_path / "new")) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_without_privileges_no_set_id_bit_is_kept_for_another_owner() -> None:
    tree = DictTree()
    tree.add_file("program", b"1", 0o6755)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o777)
        os.seteuid(NOBODY)
        try:
            copy = await copied(tree, Path(folder))
        finally:
            os.seteuid(0)
        mode = stat.S_IMODE(os.stat(f"{folder}/program").st_mode)

    assert copy.complaints == {}
    assert mode == 0o755


async def test_a_file_is_restored_without_the_attributes_that_nothing_can_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = DictTree()
    xattrs = {b"user." + b"x" * 300: b"", b"user.large": bytes(100_000), b"user.\0": b""}
    file = Node(
        stat.S_IFREG | 0o644, data=bytearray(b"content"), xattrs=xattrs | {b"user.ok": b"1"}
    )
    tree.top.children[b"file"] = file

    copy = await copied(tree, tmp_path / "new")

    assert copy.complaints == {}
    assert (tmp_path / "new/file").read_bytes() == b"content"
    assert os.listxattr(tmp_path / "new/file") == ["user.ok"]
    assert caplog.text.count("is left out") == len(xattrs)
    caplog.clear()

"""Listing through the kernel: what is kept of names, and for whom attributes come with them."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.dict_tree import DictTree, FrozenTree, Node
from support.mounting import Mounted, mounted

from backgate.fs.running import running
from backgate.fs.tree import Tree

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

FILES = 3000  # in each of two directories


def two_directories(happened: Callable[[str, bytes], None]) -> Tree:
    tree = DictTree()
    tree.happened = happened
    for directory in ("first", "second"):
        for number in range(FILES):
            tree.add_file(f"{directory}/{number:04}", b"x")
    tree.add("first/link", Node(stat.S_IFLNK | 0o777, target=b"0000"))
    tree.add("first/pipe", Node(stat.S_IFIFO | 0o600))
    shared = tree.add_file("first/shared", b"x")
    shared.nlink = 2
    tree.add("second/shared", shared)
    return FrozenTree(tree)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    with mounted(two_directories, tmp_path, runtime=tmp_path) as made:
        yield made


def lookups(mount: Mounted) -> int:
    return sum(call.startswith("child ") for call in mount.happened())


def test_names_that_are_only_listed_leave_nothing_behind(mount: Mounted, tmp_path: Path) -> None:
    (control,) = running([tmp_path])

    found = [name for _, _, names in os.walk(mount.path) for name in names]

    assert len(found) == 2 * FILES + 4
    assert control.ask("status")["inodes"] < 10


def test_a_name_has_the_number_in_its_directory_that_stat_shows(mount: Mounted) -> None:
    numbers = {entry.path: entry.inode() for entry in os.scandir(mount.path / "first")}

    assert numbers == {path: os.lstat(path).st_ino for path in numbers}
    assert os.stat(mount.path / "second" / "shared").st_ino in numbers.values()


def test_a_name_has_its_type_in_its_directory(mount: Mounted) -> None:
    with os.scandir(mount.path / "first") as entries:
        links = {entry.name for entry in entries if entry.is_symlink()}
    with os.scandir(mount.path / "first") as entries:
        odd = {entry.name for entry in entries if not entry.is_file(follow_symlinks=False)}

    assert (links, odd) == ({"link"}, {"link", "pipe"})
    assert lookups(mount) == 1  # the directory


def test_who_looks_at_files_is_soon_told_of_them_with_the_names(mount: Mounted) -> None:
    first = [entry.stat().st_size for entry in os.scandir(mount.path / "first") if entry.is_file()]
    asked = lookups(mount)
    second = [entry.stat().st_size for entry in os.scandir(mount.path / "second")]

    assert len(first) == FILES + 2
    assert second == [1] * (FILES + 1)
    assert asked < FILES // 5
    assert lookups(mount) < asked + 3

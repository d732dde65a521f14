"""`gateway/providers/local_directories.py`: remembered, and never older than the directory."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backgate.gateway.providers import local_directories
from backgate.gateway.providers.local_directories import FEW, RECENT_NS, Directories


@contextmanager
def opened(path: Path) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield folder
    finally:
        os.close(folder)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A directory worth remembering, unchanged for long."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(FEW + 1):
        (folder / f"{number:05}").touch()
    age(folder)
    return folder


def age(folder: Path) -> None:
    then = time.time_ns() - 2 * RECENT_NS
    os.utime(folder, ns=(then, then))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a directory was really read."""
    read, found = local_directories._read, list[int]()

    def counted(folder: int) -> list[str]:
        found.append(folder)
        return read(folder)

    monkeypatch.setattr(local_directories, "_read", counted)
    return found


def test_names_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    for name in ("a0", "a-", "B"):
        (tmp_path / name).touch()
    (tmp_path / "a").mkdir()

    with opened(tmp_path) as folder:
        assert Directories().names(folder) == ["B", "a-", "a/", "a0"]


def test_a_large_directory_is_read_once(many: Path, reads: list[int]) -> None:
    directories = Directories()

    with opened(many) as folder:
        assert directories.names(folder) == directories.names(folder)

    assert len(reads) == 1


def test_one_that_was_changed_is_read_again(many: Path) -> None:
    directories = Directories()
    with opened(many) as folder:
        directories.names(folder)
        (many / "new").touch()

        assert "new" in directories.names(folder)


def test_one_that_was_changed_a_moment_ago_is_not_relied_on(many: Path, reads: list[int]) -> None:
    (many / "new").touch()
    directories = Directories()

    with opened(many) as folder:
        directories.names(folder)
        directories.names(folder)

    assert len(reads) == 2

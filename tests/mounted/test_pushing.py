"""Large files through the kernel: what is pushed ahead of readers is what they would have read."""

import mmap
import os
import random
import subprocess
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.dict_tree import DictTree, FrozenTree
from support.mounting import Mounted, mounted

from backgate.fs.tree import Tree
from backgate.gateway.units import KIB, MIB

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

LARGE = array("L", range(6 * MIB)).tobytes() + b"an odd end"  # 48 MiB; every word is its own place


def frozen(happened: Callable[[str, bytes], None]) -> Tree:
    tree = DictTree()
    tree.happened = happened
    tree.add_file("large", LARGE)
    return FrozenTree(tree)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    with mounted(frozen, tmp_path) as made:
        yield made


def test_a_large_file_is_read_in_few_pieces(mount: Mounted) -> None:
    assert (mount.path / "large").read_bytes() == LARGE

    assert mount.happened().count("read large") < 64  # of the 384 that the kernel would make


def test_the_last_page_ends_where_the_file_ends(mount: Mounted) -> None:
    copied = subprocess.run(["cat", mount.path / "large"], capture_output=True, check=True).stdout

    assert len(copied) == len(LARGE)
    assert copied[-20:] == LARGE[-20:]


def test_readers_of_all_kinds_at_once_see_the_same_bytes(mount: Mounted) -> None:
    path = mount.path / "large"
    kinds = [_in_order, _by_leaps, _past_the_page_cache] * 4

    with ThreadPoolExecutor(len(kinds)) as pool:
        wrong = list(pool.map(lambda number: kinds[number](path, number), range(len(kinds))))

    assert wrong == [[]] * len(kinds)


def _in_order(path: Path, seed: int) -> list[int]:
    """Read on from some place; return the offsets of what was wrong."""
    start = random.Random(seed).randrange(len(LARGE) // 2)
    return _wrong(path, [(offset, 100_000) for offset in range(start, len(LARGE), 100_000)])


def _by_leaps(path: Path, seed: int) -> list[int]:
    choice = random.Random(seed)
    return _wrong(path, [(choice.randrange(len(LARGE)), 50_000) for _ in range(100)])


def _wrong(path: Path, reads: list[tuple[int, int]]) -> list[int]:
    with open(path, "rb", buffering=0) as file:
        return [
            offset
            for offset, length in reads
            if os.pread(file.fileno(), length, offset) != LARGE[offset : offset + length]
        ]


def _past_the_page_cache(path: Path, seed: int) -> list[int]:
    wrong: list[int] = []
    buffer = mmap.mmap(-1, 256 * KIB)  # aligned, as O_DIRECT wants it
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        for offset in range(0, len(LARGE), len(buffer)):
            count = os.preadv(descriptor, [buffer], offset)
            if buffer[:count] != LARGE[offset : offset + len(buffer)]:
                wrong.append(offset)
    finally:
        os.close(descriptor)
    return wrong

"""What is fetched early, what is fetched together, and what is held while that happens."""

import os
import random
from pathlib import Path

import pytest
import trio
import trio.testing
from support.extract import content, entries, find, read_all
from support.objects import FolderObjects
from support.restic import Forge
from support.restic_format import only_tree
from support.writing import until

from backgate.fs.formats.restic.allowance import Allowance
from backgate.fs.formats.restic.expected import Expected
from backgate.fs.formats.restic.packs import GAP_MAX, RANGE_MAX, Blob, ranges
from backgate.fs.formats.restic.segment import Location
from backgate.fs.tree import Tree
from backgate.gateway.errors import Damaged
from backgate.gateway.units import KIB, MIB

BLOB = 256 * KIB  # bytes
BLOBS = [random.Random(number).randbytes(BLOB) for number in range(40)]


def forge_large_file(path: Path) -> None:
    forge = Forge(path)
    forge.snapshot(forge.tree(forge.file("large", *BLOBS)))


def data_reads(objects: FolderObjects) -> list[tuple[str, int, int]]:
    return [read for read in objects.reads if "/data/" in read[0]]


@pytest.mark.slow
async def test_readers_of_one_blob_share_one_request(tmp_path: Path) -> None:
    forge_large_file(tmp_path / "web")

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, objects):
        entry = await find(tree, b"large")
        objects.reads.clear()
        async with tree.open(entry) as source, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(source.read_at, 5 * BLOB, 1000)

        wanted = [read for read in data_reads(objects) if read[1] <= 5 * BLOB + KIB < sum(read[1:])]
        assert len(wanted) == 1


@pytest.mark.slow
async def test_a_sequential_reader_finds_the_next_blobs_fetched(tmp_path: Path) -> None:
    forge_large_file(tmp_path / "web")

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, objects):
        entry = await find(tree, b"large")
        async with tree.open(entry) as source:
            await source.read_at(0, 1000)
            await until(lambda: max(sum(read[1:]) for read in data_reads(objects)) > 5 * BLOB)
            objects.reads.clear()

            assert await source.read_at(BLOB, 4 * BLOB) == b"".join(BLOBS[1:5])
            assert all(offset > 4 * BLOB for _, offset, _ in data_reads(objects))
            assert await read_all(source) == b"".join(BLOBS)


@pytest.mark.slow
async def test_a_reader_who_jumps_about_fetches_only_what_he_reads(tmp_path: Path) -> None:
    forge_large_file(tmp_path / "web")

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, objects):
        entry = await find(tree, b"large")
        async with tree.open(entry) as source:
            objects.reads.clear()
            for number in (30, 10, 20):
                await source.read_at(number * BLOB + 7, 1000)

        later = [read for read in data_reads(objects) if read[1] > 2 * BLOB]
        assert len(later) == 3
        assert all(length < BLOB + KIB for _, _, length in later)


@pytest.mark.slow
async def test_a_large_file_comes_in_few_requests(tmp_path: Path) -> None:
    forge_large_file(tmp_path / "web")

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, objects):
        objects.reads.clear()
        assert await content(tree, b"large") == b"".join(BLOBS)

        assert len(data_reads(objects)) < 16  # of 40 blobs
        assert sum(length for _, _, length in data_reads(objects)) < 12 * MIB


async def test_damage_ahead_of_a_reader_is_not_his(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    nodes = [forge.file(f"{number}", b"%d" % number * 100) for number in range(9)]
    broken = forge.index[5]
    (tmp_path / "web" / "data" / str(broken["id"])[:2] / str(broken["id"])).unlink()
    forge.snapshot(forge.tree(*nodes))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        for number in (0, 1, 2, 3, 4, 6, 7, 8):
            assert await content(tree, b"%d" % number) == b"%d" % number * 100
        with pytest.raises(Damaged):
            await content(tree, b"5")


async def test_a_damaged_directory_ahead_stops_no_one(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "web")
    fine = forge.tree(forge.file("x", b"x"))
    bad = forge.tree(forge.file("..", b"y"))
    folders = [
        {"name": f"{number}", "type": "dir", "mode": 1 << 31, "subtree": subtree}
        for number, subtree in enumerate([fine, fine, fine, bad, fine, fine])
    ]
    forge.snapshot(forge.tree(*folders))

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        assert await walked(tree) == 5


async def walked(tree: Tree) -> int:
    files = 0
    for directory in [entry async for entry in entries(tree, await tree.root())]:
        try:
            for entry in [entry async for entry in entries(tree, directory)]:
                async with tree.open(entry) as source:
                    await read_all(source)
                files += 1
        except Damaged:
            assert directory.name == b"3"
    return files


def test_neighbours_make_one_range_until_it_is_too_long() -> None:
    def blob(pack: int, offset: int, length: int) -> Blob:
        return Blob(os.urandom(32), Location(bytes([pack]) * 32, offset, length, 0))

    near = [blob(1, 0, 100), blob(1, 100, 50), blob(1, 150 + GAP_MAX, 10)]
    far = blob(1, 200 + 3 * GAP_MAX, 10)
    other = blob(2, 300, 10)
    assert [part.blobs for part in ranges([other, far, *near[::-1]], 1 << 30, 1 << 30)] == [
        near,
        [far],
        [other],
    ]

    row = [blob(1, number * MIB, MIB) for number in range(20)]
    assert all(part.length <= RANGE_MAX for part in ranges(row, 1 << 30, 1 << 30))
    assert all(part.length <= 6 * MIB for part in ranges(row, 6 * MIB, 1 << 30))
    assert all(part.plain_length <= 6 * MIB for part in ranges(row, 1 << 30, 6 * MIB))
    assert sum(len(part.blobs) for part in ranges(row, 1, 1)) == 20


async def test_an_allowance_is_given_in_the_order_of_asking(autojump_clock: object) -> None:
    allowance, order = Allowance(100), list[str]()

    async def hold(name: str, size: int, seconds: float) -> None:
        async with allowance.held(size):
            order.append(name)
            await trio.sleep(seconds)

    async with trio.open_nursery() as nursery:
        for name, size in (("first", 60), ("large", 1000), ("small", 10)):
            nursery.start_soon(hold, name, size, 5)
            await trio.sleep(1)

    assert order == ["first", "large", "small"]


async def test_who_gives_up_waiting_takes_nothing(autojump_clock: object) -> None:
    allowance = Allowance(100)

    async with allowance.held(60):
        with trio.move_on_after(1):
            async with allowance.held(50):
                raise AssertionError("more was given than there is")
        async with allowance.held(40):
            pass

    async with allowance.held(100):
        pass


def test_what_is_reached_is_expected_once_and_what_is_passed_over_still_is() -> None:
    line: Expected[str] = Expected()
    for name in "abcd":
        line.add(name, 10)

    assert line.weight == 40
    assert line.reached("c") and not line.reached("c")
    assert (len(line), line.weight) == (1, 10)
    assert line.reached("a") and not line.reached("a")
    assert not line.reached("x")
    assert line.reached("d") and line.weight == 0


async def test_a_bug_in_the_background_harms_one_reader_and_not_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge = Forge(tmp_path / "web")
    nodes = [forge.file(f"{number}", b"%d" % number * 100) for number in range(9)]
    forge.snapshot(forge.tree(*nodes))

    def crash(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    async with only_tree(tmp_path, tmp_path / "cache") as (tree, _):
        await find(tree, b"4")
        with monkeypatch.context() as broken:
            broken.setattr(FolderObjects, "source", crash)
            with pytest.raises(ZeroDivisionError):
                await content(tree, b"4")
            await trio.testing.wait_all_tasks_blocked(0.01)

        for number in range(9):
            assert await content(tree, b"%d" % number) == b"%d" % number * 100

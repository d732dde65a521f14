"""The index of an archive: made once, by whoever comes first, with a bounded number of requests."""

import errno
import gzip
import io
import tarfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import trio
import trio.testing
from contracts.format_contract import surroundings
from support.archives import END, member, opened, small_archive
from support.extract import content, find
from support.objects import FolderObjects
from support.trees import run

from backgate.fs.formats import indexes as indexes_module
from backgate.fs.formats.indexes import Indexes
from backgate.fs.formats.tar import schema
from backgate.fs.formats.tar.build import build
from backgate.fs.formats.tar.index import Index
from backgate.gateway.errors import FileError, Unreachable
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source
from backgate.gateway.units import KIB, MIB


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def folder_of(cache: Path) -> Path:
    return cache / f"index-{schema.VERSION}"


def indexes(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file() and "verdicts" not in path.name]


async def test_small_members_are_read_in_bulk(store: Path, cache: Path) -> None:
    members = [member(f"d/{number}", bytes(3000)) for number in range(8000)]
    (store / "a.tar").write_bytes(b"".join(members) + END)
    size = (store / "a.tar").stat().st_size

    async with opened(store, cache) as (_, objects):
        assert len(objects.reads) <= size // (8 * MIB) + 3


async def test_large_members_are_skipped(store: Path, cache: Path) -> None:
    with (store / "a.tar").open("wb") as file:
        for number in range(20):
            file.write(member(f"image {number}", size=200 * MIB))
            file.seek(200 * MIB, io.SEEK_CUR)
        file.write(END)

    async with opened(store, cache) as (_, objects):
        assert len(objects.reads) <= 25
        assert sum(length for _, _, length in objects.reads) < 20 * MIB


async def test_mixed_sizes_never_cost_more_than_a_request_for_4_mib(
    store: Path, cache: Path
) -> None:
    with (store / "a.tar").open("wb") as file:
        for number in range(400):
            size = (number * 7919 % 40) * MIB // 2 + 512
            file.write(member(f"file {number}", size=size))
            file.seek(size, io.SEEK_CUR)
        file.write(END)
    size = (store / "a.tar").stat().st_size

    async with opened(store, cache) as (_, objects):
        assert len(objects.reads) <= size // (4 * MIB) + 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "compressor"),
    [("", "cat"), (".gz", "gzip -1"), (".zst", "zstd"), (".xz", "xz -0"), (".bz2", "bzip2 -1")],
)
async def test_a_file_near_the_end_is_read_with_few_requests(
    store: Path, cache: Path, tmp_path: Path, suffix: str, compressor: str
) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(40):
        (tmp_path / "tree" / f"{number:02}").write_bytes(bytes([number]) * MIB)
    (tmp_path / "tree" / "zz last").write_bytes(b"last" * 1000)
    key = f"a.tar{suffix}"
    options = ("--sort=name", "-I", compressor) if suffix else ("--sort=name",)
    run("tar", "-C", tmp_path / "tree", *options, "-cf", store / key, ".")
    size = (store / key).stat().st_size
    async with opened(store, cache, key) as (_, objects):
        assert len(objects.reads) <= size // (4 * MIB) + 10

    async with opened(store, cache, key) as (tree, objects):
        assert await content(tree, b"zz last") == b"last" * 1000

        assert len(objects.reads) <= 2
        assert sum(length for _, _, length in objects.reads) <= 2 * MIB


async def test_the_index_is_made_once(store: Path, cache: Path) -> None:
    (store / "a.tar.gz").write_bytes(gzip.compress(small_archive()))
    async with opened(store, cache, "a.tar.gz"):
        (index,) = indexes(cache)
        first = index.stat()

    async with opened(store, cache, "a.tar.gz") as (tree, objects):
        assert objects.reads == []
        assert (await find(tree, b"b")).size == 1
        assert [path.stat().st_ino for path in indexes(cache)] == [first.st_ino]


async def test_another_version_of_the_object_gets_its_own_index(store: Path, cache: Path) -> None:
    (store / "a.tar").write_bytes(member("f", b"old") + END)
    async with opened(store, cache) as (tree, _):
        assert await content(tree, b"f") == b"old"

    (store / "a.tar").write_bytes(member("f", b"changed") + END + END)
    async with opened(store, cache) as (tree, _):
        assert await content(tree, b"f") == b"changed"


async def test_an_index_that_the_disk_harmed_is_made_again(
    store: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (store / "a.tar").write_bytes(small_archive())
    async with opened(store, cache):
        (index,) = indexes(cache)
    index.write_bytes(b"nonsense" * 1000)

    async with opened(store, cache) as (tree, _):
        assert await content(tree, b"b") == b"b"
    assert "made again" in caplog.text


async def test_openers_share_one_build(store: Path, cache: Path) -> None:
    (store / "a.tar").write_bytes(small_archive())
    objects = FolderObjects(store)
    info = await objects.info("a.tar")
    made = Indexes(objects, folder_of(cache), Index, build)

    async def open_it() -> None:
        (await made.open(info)).close()

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(open_it)

    assert len(objects.reads) == 2  # what it begins with, and all of it


class Stalling(FolderObjects):
    """Objects whose reads wait until they are let through, or fail."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked, self.go_on = trio.Event(), trio.Event()
        self.fails = 0

    def source(self, info: ObjectInfo) -> Source:
        return _StallingSource(self, super().source(info))

    def sequential(self, info: ObjectInfo) -> AbstractContextManager[Source]:
        return nullcontext(self.source(info))


class _StallingSource:
    def __init__(self, objects: Stalling, source: Source) -> None:
        self.size, self._objects, self._source = source.size, objects, source

    async def read_at(self, offset: int, length: int) -> Data:
        self._objects.asked.set()
        await self._objects.go_on.wait()
        if self._objects.fails:
            self._objects.fails -= 1
            raise Unreachable("no answer")
        return await self._source.read_at(offset, length)


async def test_a_cancelled_build_leaves_nothing_and_the_next_opener_builds(
    store: Path, cache: Path
) -> None:
    (store / "a.tar.gz").write_bytes(gzip.compress(small_archive()))
    objects = Stalling(store)
    info = await objects.info("a.tar.gz")
    made = Indexes(objects, folder_of(cache), Index, build)
    results: list[bool] = []

    async def open_it() -> None:
        (await made.open(info)).close()
        results.append(True)

    async with trio.open_nursery() as waiting:
        async with trio.open_nursery() as first:
            first.start_soon(open_it)
            await objects.asked.wait()
            waiting.start_soon(open_it)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        objects.go_on.set()

    assert results == [True]
    assert len(indexes(cache)) == 1


async def test_a_build_that_failed_is_tried_again_by_who_waited(store: Path, cache: Path) -> None:
    (store / "a.tar").write_bytes(small_archive())
    objects = Stalling(store)
    objects.fails = 1
    info = await objects.info("a.tar")
    made = Indexes(objects, folder_of(cache), Index, build)
    results: list[str] = []

    async def open_it() -> None:
        try:
            (await made.open(info)).close()
            results.append("opened")
        except Unreachable:
            results.append("failed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_it)
        nursery.start_soon(open_it)
        await trio.testing.wait_all_tasks_blocked()
        objects.go_on.set()

    assert sorted(results) == ["failed", "opened"]
    assert len(indexes(cache)) == 1


async def test_old_indexes_give_way_when_the_disk_share_is_used_up(
    store: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes_module, "DISK_MAX", 1)
    for name in ("a.tar", "b.tar"):
        (store / name).write_bytes(small_archive())
    (folder_of(cache)).mkdir(parents=True)
    left_behind = folder_of(cache) / "x.new"
    left_behind.touch()

    async with opened(store, cache, "a.tar") as (tree, _), opened(store, cache, "b.tar"):
        assert len(indexes(cache)) == 2  # that of b, and one that somebody may be writing

        assert await content(tree, b"b") == b"b"  # an open index goes on working


async def test_a_full_disk_ends_the_build_of_a_plain_archive_too(
    store: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backgate.fs.formats.compression.firstpass.FREE_MIN", 1 << 60)
    (store / "a.tar").write_bytes(b"".join(member(f"{n}") for n in range(300)) + END)

    with pytest.raises(FileError) as caught:
        async with opened(store, cache):
            pass

    assert caught.value.errno == errno.ENOSPC
    assert indexes(cache) == []


@pytest.mark.slow
async def test_a_hundred_thousand_members(store: Path, cache: Path) -> None:
    block = tarfile.TarInfo("d000/0000")
    block.size = 0
    with (store / "a.tar").open("wb") as file:
        for number in range(100_000):
            block.name = f"d{number % 300:03}/{number:06}"
            file.write(block.tobuf(tarfile.USTAR_FORMAT))
        file.write(END)

    async with surroundings(store, cache) as lent:
        info = await lent.objects.info("a.tar")
        index = await Indexes(lent.objects, folder_of(cache), Index, build).open(info)
        assert index.fact("members") == 100_000
        assert len(index.children(index.child(1, b"d007").node, b"", 1000)) == 334  # type: ignore[union-attr]
        index.close()
    (path,) = indexes(cache)
    assert path.stat().st_size < 100_000 * 200 + 100 * KIB

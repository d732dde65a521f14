"""Truncated and changed archives: an error of ours that says where, never wrong data or a hang."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import zstandard
from contracts.format_contract import found, surroundings
from hypothesis import given, settings
from hypothesis import strategies as some
from support.archives import END, member, opened, small_archive
from support.extract import read_all
from support.objects import FolderObjects

from backgate.fs.formats.tar import schema
from backgate.fs.formats.tar.extraction import Extraction
from backgate.fs.formats.tar.format import TarFormat
from backgate.fs.formats.tar.members import members
from backgate.fs.tree import Entry, Tree
from backgate.gateway.errors import Damaged, FileError, Replaced, Unreachable
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source

ARCHIVE = small_archive()
SECONDS = 120  # far more than any of these takes
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}

Listing = dict[bytes, tuple[Entry, bytes]]


async def listing(store: Path, cache: Path, key: str = "a.tar") -> Listing:
    """Return everything that an archive shows."""
    os.utime(store / key, (0, 0))  # directories without a member have the archive's own time
    shown: Listing = {}
    with trio.fail_after(SECONDS):
        async with opened(store, cache, key) as (tree, _):
            await _list(tree, await tree.root(), b"", shown)
    return shown


async def _list(tree: Tree, directory: Entry, path: bytes, shown: Listing) -> None:
    for entry in (await tree.children(directory)).entries:
        data = b""
        if entry.is_file:
            async with tree.open(entry) as source:
                data = await read_all(source)
        elif entry.is_directory:
            await _list(tree, entry, path + entry.name + b"/", shown)
        shown[path + entry.name] = entry, data


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.mark.slow
async def test_an_archive_cut_at_any_block_is_damaged(store: Path, tmp_path: Path) -> None:
    for size in range(0, len(ARCHIVE), 512):
        (store / "a.tar").write_bytes(ARCHIVE[:size])

        with pytest.raises(Damaged, match=r"^a\.tar at byte \d+: "):
            await listing(store, tmp_path / f"cache-{size}")

        async with surroundings(store, tmp_path / "cache") as lent:
            (backup,) = await found(TarFormat(lent))
            assert not backup.is_complete
            assert backup.reason


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESS)
async def test_a_compressed_archive_cut_anywhere_is_damaged(
    store: Path, tmp_path: Path, suffix: str
) -> None:
    key = f"a.tar.{suffix}"
    packed = COMPRESS[suffix](ARCHIVE)
    for size in range(8, len(packed), 7):
        (store / key).write_bytes(packed[:size])

        with pytest.raises(Damaged, match=r"^a\.tar\.\w+ (\(unpacked\) )?at byte \d+: "):
            await listing(store, tmp_path / f"cache-{size}", key)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESS)
async def test_a_compressed_archive_changed_anywhere_is_damaged_or_the_same(
    store: Path, tmp_path: Path, suffix: str
) -> None:
    key = f"a.tar.{suffix}"
    packed = COMPRESS[suffix](ARCHIVE)
    (store / key).write_bytes(packed)
    right = await listing(store, tmp_path / "cache", key)
    for at in range(8, len(packed), 5):
        changed = bytearray(packed)
        changed[at] ^= 0x10
        (store / key).write_bytes(changed)

        try:
            shown = await listing(store, tmp_path / f"cache-{at}", key)
        except Damaged:
            continue
        assert shown == right  # a byte that means nothing, such as the time in a gzip header


@pytest.mark.slow
async def test_a_header_changed_anywhere_is_damaged_or_the_same(
    store: Path, tmp_path: Path
) -> None:
    archive = member("one", b"1" * 700) + member("two", b"2") + END
    (store / "a.tar").write_bytes(archive)
    right = await listing(store, tmp_path / "cache")
    for at in [*range(0, 512, 3), *range(1536, 2048, 3)]:
        changed = bytearray(archive)
        changed[at] ^= 0x01
        (store / "a.tar").write_bytes(changed)

        try:
            shown = await listing(store, tmp_path / f"cache-{at}")
        except Damaged:
            continue
        assert shown == right  # the checksum itself, written in another way


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(some.binary(max_size=1500), some.integers(0, 8), some.sampled_from(["", *COMPRESS]))
def test_any_bytes_are_an_archive_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, blocks: int, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "store").mkdir()
    archive = ARCHIVE[: 512 * blocks] + data
    packed = COMPRESS[suffix](archive)[:-9] + data[:9] if suffix else archive
    (folder / "store" / "a.tar").write_bytes(packed)

    with suppress(Damaged, FileError):
        trio.run(listing, folder / "store", folder / "cache")


async def test_one_zero_block_is_no_end(store: Path, tmp_path: Path) -> None:
    (store / "a.tar").write_bytes(member("a") + bytes(512) + member("b") + END)

    with pytest.raises(Damaged, match="one zero block"):
        await listing(store, tmp_path / "cache")


async def test_a_size_beyond_the_archive_is_a_truncation(store: Path, tmp_path: Path) -> None:
    (store / "a.tar").write_bytes(member("a", size=2**62) + END)

    with pytest.raises(Damaged, match="truncated"):
        await listing(store, tmp_path / "cache")


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,20"},
        {"GNU.sparse.size": "100", "GNU.sparse.map": "50,10,0,10"},
        {"GNU.sparse.size": "100", "GNU.sparse.map": "0"},
        {"GNU.sparse.size": "100", "GNU.sparse.map": "0,99"},
        {"GNU.sparse.size": "x", "GNU.sparse.map": "0,1"},
        {"size": "-1"},
        {"mtime": "soon"},
        {"LIBARCHIVE.xattr.user.x": "A"},
    ],
)
async def test_records_that_make_no_sense_are_damaged(
    store: Path, tmp_path: Path, headers: dict[str, str]
) -> None:
    (store / "a.tar").write_bytes(_pax(headers) + member("a", b"not a sparse map") + END)

    with pytest.raises(Damaged, match="at byte 1024"):
        await listing(store, tmp_path / "cache")


@pytest.mark.parametrize("kind", [b"x", b"g"])
async def test_records_that_would_fill_the_memory_are_damaged(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr("backgate.fs.formats.tar.pax.RECORDS_MAX", 100)
    headers = [_pax({f"{number}-{key}": "x" for key in range(40)}, kind) for number in range(3)]
    (store / "a.tar").write_bytes(b"".join(headers) + member("a") + END)

    with pytest.raises(Damaged, match="more than 100 pax records"):
        await listing(store, tmp_path / "cache")


@pytest.mark.parametrize("kind", [b"x", b"g"])
async def test_headers_that_would_fill_the_memory_together_are_damaged(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr("backgate.fs.formats.tar.members.EXTENDED_MAX", 2500)
    monkeypatch.setattr("backgate.fs.formats.tar.members.SHARED_MAX", 2500)
    headers = [_pax({f"key-{number}": "x" * 980}, kind) for number in range(3)]
    (store / "a.tar").write_bytes(b"".join(headers) + member("a") + END)

    with pytest.raises(Damaged, match="more than"):
        await listing(store, tmp_path / "cache")


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "old"])
async def test_a_sparse_map_that_would_fill_the_memory_is_damaged(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("backgate.fs.formats.tar.sparse.EXTENTS_MAX", 3)
    with open(tmp_path / "a", "wb") as file:
        for number in range(6):
            file.seek(number << 20)
            file.write(b"data")
    made = ["--format=gnu"] if version == "old" else ["--format=pax", f"--sparse-version={version}"]
    command = ["tar", *made, "-S", "-cf", str(store / "a.tar"), "-C", str(tmp_path), "a"]
    await trio.run_process(command)

    with pytest.raises(Damaged, match=r"sparse map: .* pieces"):
        await listing(store, tmp_path / "cache")


NUMBERS = {"mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "major": 329}


@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"3", b"5", b"S"])
@pytest.mark.parametrize("number", [-(2**80), -(2**63) - 1, -1, 2**31, 2**63, 2**64, 2**80])
def test_a_number_that_nothing_can_hold_is_clipped_or_damaged(
    tmp_path: Path, kind: bytes, number: int
) -> None:
    places = [*NUMBERS.values(), *range(386, 386 + 4 * 24, 12), 483]
    for at in places:
        width = 8 if at < 124 or at == NUMBERS["major"] else 12
        block = bytearray(member("a", type=kind, linkname="b", size=0)[:512])
        if kind == b"S":
            block[483:495] = b"00000001000\0"
        block[at : at + width] = (number % 256**width).to_bytes(width, "big")
        block[at] = 0xFF if number < 0 else 0x80
        block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 32)
        with closing(schema.create(tmp_path / f"{at}")) as database, suppress(Damaged):
            extraction = Extraction(database, "a.tar", 0)
            for found_member in members(InMemory(bytes(block) + END)):
                extraction.add(found_member)
            sizes = database.execute("SELECT size FROM nodes").fetchall()
            assert all(0 <= size < 2**63 for (size,) in sizes)


class InMemory:
    """An archive in memory."""

    where = "a.tar"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, offset: int, length: int) -> bytes:
        if offset + length > len(self._data):
            raise Damaged(self.where, len(self._data), "truncated")
        return self._data[offset : offset + length]

    def finish(self) -> None:
        """There is nothing behind."""


async def test_a_truncation_found_at_the_first_opening_is_remembered(
    store: Path, tmp_path: Path
) -> None:
    packed = COMPRESS["gz"](ARCHIVE)
    (store / "a.tar.gz").write_bytes(packed[:-20])

    async with surroundings(store, tmp_path / "cache") as lent:
        format_ = TarFormat(lent)
        (backup,) = await found(format_)
        assert backup.is_complete  # the end of a gzip file tells nothing
        with pytest.raises(Damaged, match="truncated"):
            async with format_.open(backup):
                pass
        (again,) = await found(format_)
        assert not again.is_complete

    async with surroundings(store, tmp_path / "cache") as lent:
        (later,) = await found(TarFormat(lent))
        assert not later.is_complete
        assert "truncated" in later.reason
        assert isinstance(lent.objects, FolderObjects)
        assert lent.objects.reads == []

    (store / "a.tar.gz").write_bytes(packed)
    async with surroundings(store, tmp_path / "cache") as lent:
        (mended,) = await found(TarFormat(lent))
        assert mended.is_complete


async def test_an_archive_that_was_found_damaged_is_not_read_again(
    store: Path, tmp_path: Path
) -> None:
    (store / "a.tar.gz").write_bytes(COMPRESS["gz"](ARCHIVE)[:-20])
    async with surroundings(store, tmp_path / "cache") as lent:
        format_, objects = TarFormat(lent), lent.objects
        assert isinstance(objects, FolderObjects)
        (backup,) = await found(format_)
        for is_read in (True, False):
            objects.reads.clear()
            with pytest.raises(Damaged, match="truncated"):
                async with format_.open(backup):
                    pass
            assert bool(objects.reads) == is_read


async def test_an_archive_stored_anew_is_not_shown_as_the_old_one(
    store: Path, tmp_path: Path
) -> None:
    (store / "a.tar").write_bytes(member("a", b"old" * 300) + END)
    async with surroundings(store, tmp_path / "cache") as lent:
        format_ = TarFormat(lent)
        (old,) = await found(format_)
        (store / "a.tar").write_bytes(member("b", b"new") + END)
        (new,) = await found(format_)

        with pytest.raises(Replaced):
            async with format_.open(old):
                pass
        async with format_.open(new) as tree:
            assert (await tree.child(await tree.root(), b"b")).size == len(b"new")


async def test_an_archive_that_cannot_be_asked_for_is_not_missing(
    store: Path, tmp_path: Path
) -> None:
    for number in range(100):
        (store / f"{number}.tar").write_bytes(ARCHIVE)
    async with surroundings(store, tmp_path / "cache") as lent:
        away = Away(store)
        away.keys = {"50.tar"}
        format_ = TarFormat(replace(lent, objects=away))
        with pytest.raises(Unreachable):
            await found(format_)
        away.keys = set()

        assert all(backup.is_complete for backup in await found(format_))


async def test_what_is_found_is_found_anew_only_when_archives_changed(
    store: Path, tmp_path: Path
) -> None:
    (store / "a.tar").write_bytes(ARCHIVE)
    async with surroundings(store, tmp_path / "cache") as lent:
        format_ = TarFormat(lent)
        first = await found(format_)
        same = await found(format_)
        (store / "b.tar.gz").write_bytes(COMPRESS["gz"](ARCHIVE)[:-20])
        both = await found(format_)
        with pytest.raises(Damaged):
            async with format_.open(both[1]):
                pass
        spoilt = await found(format_)

    assert same is first
    assert [[one.is_complete for one in backups] for backups in (first, both, spoilt)] == [
        [True],
        [True, True],
        [True, False],
    ]


class Away(FolderObjects):
    """Objects of which some cannot be asked for."""

    keys: set[str]

    def source(self, info: ObjectInfo) -> Source:
        if info.key in self.keys:
            raise Unreachable("the store is away")
        return super().source(info)


async def test_a_spoilt_archive_hides_no_other(store: Path, tmp_path: Path) -> None:
    (store / "bad.tar").write_bytes(b"no tar at all" * 100)
    (store / "good.tar").write_bytes(ARCHIVE)
    (store / "empty.tar").write_bytes(b"")

    async with surroundings(store, tmp_path / "cache") as lent:
        backups = {backup.key: backup for backup in await found(TarFormat(lent))}

    assert [key for key, backup in backups.items() if backup.is_complete] == ["good.tar"]
    assert (
        backups["bad.tar"].reason == "not a tar archive, and not compressed in a way that is known"
    )
    assert backups["empty.tar"].reason == "empty: it was never written"


async def test_a_bomb_is_refused(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "backgate.fs.formats.compression.firstpass"
    monkeypatch.setattr(f"{module}.PLAIN_FREE", 1 << 20)
    monkeypatch.setattr(f"{module}.RATIO_MAX", 10)
    made = io.BytesIO(member("zeros", bytes(4 << 20)) + END)
    (store / "a.tar.xz").write_bytes(lzma.compress(made.getvalue()))

    with pytest.raises(Damaged, match="refused"):
        await listing(store, tmp_path / "cache", "a.tar.xz")


async def test_bytes_that_changed_since_the_first_pass_are_damaged(
    store: Path, tmp_path: Path
) -> None:
    archive = member("a", os.urandom(1_000_000)) + END
    path = store / "a.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=False).compress(archive))
    mtime_ns = path.stat().st_mtime_ns
    async with opened(store, tmp_path / "cache", "a.tar.zst") as (tree, _):
        entry = await tree.child(await tree.root(), b"a")
        with path.open("r+b") as file:  # unnoticed, as a failing disk would
            file.seek(500_000)
            file.write(b"something else")
        os.utime(path, ns=(mtime_ns, mtime_ns))

        with pytest.raises(Damaged):
            async with tree.open(entry) as source:
                await read_all(source)


def _pax(headers: dict[str, str], kind: bytes = b"x") -> bytes:
    records = b""
    for key, value in headers.items():
        body = f" {key}={value}\n".encode()
        length = len(body) + len(str(len(body) + 2))
        records += str(length).encode() + body
    return member("pax", records, type=kind)

"""What archives become: sparse files, duplicates, links, unsafe names."""

import os
import stat
import tarfile
from pathlib import Path

import pytest
from contracts.format_contract import found, surroundings
from support.archives import END, in_blocks, member, opened
from support.compare import differences
from support.extract import content, entries, extract, find
from support.trees import make_odd_tree, run, set_xattr

from backgate.fs.formats.tar.format import TarFormat
from backgate.fs.tree import Tree
from backgate.gateway.errors import Damaged, FileError

GIB = 1 << 30


def write(store: Path, *parts: bytes, name: str = "a.tar") -> Path:
    """Make an archive of members; the end is added."""
    path = store / name
    path.write_bytes(b"".join(parts) + END)
    return path


async def names(tree: Tree, path: bytes = b"") -> list[bytes]:
    return [entry.name async for entry in entries(tree, await find(tree, path))]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["gnu", "oldgnu", "pax"])
@pytest.mark.parametrize("options", [(), ("--sparse",), ("--sparse", "--hole-detection=raw")])
async def test_gnu_tar_s_formats_give_back_the_tree(
    store: Path, cache: Path, tmp_path: Path, format_: str, options: tuple[str, ...]
) -> None:
    tree_path = make_odd_tree(tmp_path / "tree")
    run("tar", "-C", tree_path, f"--format={format_}", *options, "-cf", store / "a.tar", ".")

    async with opened(store, cache) as (tree, _):
        await extract(tree, tmp_path / "out")

    has_fractions = format_ == "pax"
    assert differences(tmp_path / "out", tree_path, times=has_fractions) == []


@pytest.mark.parametrize("format_", ["v7", "ustar"])
async def test_old_formats_give_back_what_they_can_hold(
    store: Path, cache: Path, tmp_path: Path, format_: str
) -> None:
    tree_path = tmp_path / "tree"
    (tree_path / "below" / ("d" * 60)).mkdir(parents=True)
    (tree_path / "file").write_bytes(b"content" * 1000)
    (tree_path / "below" / ("d" * 60) / "more").write_bytes(b"x")
    (tree_path / "link").symlink_to("file")
    os.link(tree_path / "file", tree_path / "other")
    for path in (tree_path, *tree_path.rglob("*")):
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    run("tar", "-C", tree_path, f"--format={format_}", "-cf", store / "a.tar", ".")

    async with opened(store, cache) as (tree, _):
        await extract(tree, tmp_path / "out")

    assert differences(tmp_path / "out", tree_path) == []


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
@pytest.mark.parametrize("pieces", [0, 1, 3, 5, 300])
async def test_sparse_files_of_every_version(
    store: Path, cache: Path, tmp_path: Path, version: str, pieces: int
) -> None:
    whole = sparse_file(tmp_path / "sparse", pieces)
    run(
        "tar", "-C", tmp_path, "--format=pax", "--sparse", f"--sparse-version={version}",
        "-cf", store / "a.tar", "sparse",
    )  # fmt: skip

    async with opened(store, cache) as (tree, _):
        assert await content(tree, b"sparse") == whole


@pytest.mark.parametrize("pieces", [1, 4, 5, 25, 26, 300])
async def test_sparse_files_of_old_gnu_tar(
    store: Path, cache: Path, tmp_path: Path, pieces: int
) -> None:
    whole = sparse_file(tmp_path / "sparse", pieces)
    run("tar", "-C", tmp_path, "--format=gnu", "-S", "-cf", store / "a.tar", "sparse")

    async with opened(store, cache) as (tree, _):
        assert await content(tree, b"sparse") == whole
        async with tree.open(await find(tree, b"sparse")) as source:
            for offset in range(0, len(whole), 37_777):
                assert await source.read_at(offset, 9_000) == whole[offset : offset + 9_000]


def sparse_file(path: Path, pieces: int) -> bytes:
    with path.open("wb") as file:
        for number in range(pieces):
            file.seek(number * 16_384 + 4096)
            file.write(b"%04d" % number * 1024)
        file.truncate(pieces * 16_384 + 12_288)
    return path.read_bytes()


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_members_beyond_8_gib_are_skipped_not_read(
    store: Path, cache: Path, format_: int
) -> None:
    size = 9 * GIB + 5
    path = store / "a.tar"
    with path.open("wb") as file:
        file.write(member("huge", format_=format_, size=size))
        file.seek(size + -size % 512, os.SEEK_CUR)
        file.write(member("behind", b"it") + END)

    async with opened(store, cache) as (tree, objects):
        assert (await find(tree, b"huge")).size == size
        assert await content(tree, b"behind") == b"it"
        assert len(objects.reads) <= 5
        assert sum(min(length, 10 * 2**20) for _, _, length in objects.reads) < 20 * 2**20


async def test_extended_attributes_come_back(store: Path, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    if not set_xattr(file, "user.note", b"line\nline=\0"):
        pytest.fail("the file system of the tests keeps no extended attributes")
    run("tar", "-C", tmp_path, "--xattrs", "--format=pax", "-cf", store / "a.tar", "file")

    async with opened(store, cache) as (tree, _):
        entry = await find(tree, b"file")
        assert entry.has_xattrs
        assert (await tree.xattrs(entry))[b"user.note"] == b"line\nline=\0"


async def test_the_last_of_equal_names_wins(store: Path, cache: Path) -> None:
    write(store, member("f", b"old"), member("d/x", b"1"), member("f", b"new"), member("./f", b"3"))

    async with opened(store, cache) as (tree, _):
        assert await content(tree, b"f") == b"3"
        assert await names(tree) == [b"d", b"f"]


async def test_a_hard_link_keeps_what_it_was_made_of(store: Path, cache: Path) -> None:
    link = member("link", type=tarfile.LNKTYPE, linkname="./f")
    write(store, member("f", b"old"), link, member("f", b"new"))

    async with opened(store, cache) as (tree, _):
        assert await content(tree, b"link") == b"old"
        assert await content(tree, b"f") == b"new"
        assert (await find(tree, b"link")).nlink == 1


async def test_hard_links_with_data_as_pax_writes_them(store: Path, cache: Path) -> None:
    data = in_blocks(b"not a header" * 10)
    link = member("link", type=tarfile.LNKTYPE, linkname="f", size=120)
    says_only = member("other", type=tarfile.LNKTYPE, linkname="f", size=120)
    write(store, member("f", b"f"), link, data, says_only, member("behind", b"b"))

    async with opened(store, cache) as (tree, _):
        assert await names(tree) == [b"behind", b"f", b"link", b"other"]
        assert (await find(tree, b"f")).nlink == 3


async def test_directories_that_no_member_describes_are_there(store: Path, cache: Path) -> None:
    write(store, member("a/b/c", b"c"), member("a/", type=tarfile.DIRTYPE, mode=0o700, mtime=5))

    async with opened(store, cache) as (tree, _):
        assert (await find(tree, b"a/b")).mode == stat.S_IFDIR | 0o755
        assert (await find(tree, b"a")).mode == stat.S_IFDIR | 0o700
        assert await content(tree, b"a/b/c") == b"c"


async def test_unsafe_and_impossible_members_are_left_out_and_said(
    store: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(
        store,
        member("/etc/absolute", b"shown below the top"),
        member("../escape", b"no"),
        member("a/../../escape", b"no"),
        member("file", b"f"),
        member("file/below", b"no"),
        member("link", type=tarfile.SYMTYPE, linkname="/etc"),
        member("link/below", b"no"),
        member("hard", type=tarfile.LNKTYPE, linkname="../../etc/passwd"),
        member("dangling", type=tarfile.LNKTYPE, linkname="absent"),
        member("dir/x", b"x"),
        member("dir", b"a file over a directory"),
        member("n" * 256, b"no"),
        member("empty link", type=tarfile.SYMTYPE, linkname=""),
    )

    async with opened(store, cache) as (tree, _):
        assert await names(tree) == [b"dir", b"etc", b"file", b"link"]
        assert await content(tree, b"etc/absolute") == b"shown below the top"
        assert await content(tree, b"file") == b"f"

    assert "9 of its members cannot be shown" in caplog.text
    async with surroundings(store, cache) as lent:
        (backup,) = await found(TarFormat(lent))
        assert backup.is_complete
        note = backup.notes["left_out"]
        assert note.startswith("9 members: '../escape': its name contains '..'; 'a/../../escape'")


async def test_names_are_bytes(store: Path, cache: Path) -> None:
    raw = b"\xff\xfe\x01 name"
    write(store, member(os.fsdecode(raw), b"x"), member("ü", b"y", format_=tarfile.PAX_FORMAT))

    async with opened(store, cache) as (tree, _):
        assert await names(tree) == ["ü".encode(), raw]


async def test_devices_and_fifos(store: Path, cache: Path) -> None:
    write(
        store,
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("fifo", type=tarfile.FIFOTYPE, mode=0o600),
    )

    async with opened(store, cache) as (tree, _):
        null, fifo = await find(tree, b"null"), await find(tree, b"fifo")
        assert stat.S_ISCHR(null.mode)
        assert null.rdev == os.makedev(1, 3)
        assert fifo.mode == stat.S_IFIFO | 0o600
        with pytest.raises(FileError):
            async with tree.open(fifo):
                pass


async def test_global_headers_hold_until_overridden(store: Path, cache: Path) -> None:
    common = {"mtime": "1500000000.25", "comment": "x"}
    shared = tarfile.TarInfo.create_pax_global_header(common)
    own = member("b", b"", format_=tarfile.PAX_FORMAT, pax_headers={"mtime": "7.5"})
    write(store, shared, member("a"), own, member("c"))

    async with opened(store, cache) as (tree, _):
        assert (await find(tree, b"a")).mtime_ns == 1_500_000_000_250_000_000
        assert (await find(tree, b"b")).mtime_ns == 7_500_000_000
        assert (await find(tree, b"c")).mtime_ns == 1_500_000_000_250_000_000


async def test_later_archives_behind_the_end_are_not_shown(store: Path, cache: Path) -> None:
    write(store, member("a", b"1"), END, member("b", b"2"))

    async with opened(store, cache) as (tree, _):
        assert await names(tree) == [b"a"]


async def test_an_incremental_archive_of_gnu_tar(store: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "src" / "sub").mkdir(parents=True)
    (tmp_path / "src" / "sub" / "f").write_bytes(b"f")
    run(
        "tar", "-C", tmp_path, "--format=gnu", "--label=volume", "-g", tmp_path / "snar",
        "-cf", store / "a.tar", "src",
    )  # fmt: skip

    async with opened(store, cache) as (tree, _):
        assert await content(tree, b"src/sub/f") == b"f"
        assert await names(tree) == [b"src"]


async def test_a_later_volume_is_refused_clearly(store: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(60_000))
    run(
        "tar", "-C", tmp_path, "--format=gnu", "-M", "-L", "40", "-cf", store / "one.tar",
        "-f", store / "two.tar", "big",
    )  # fmt: skip

    with pytest.raises(Damaged, match="several volumes"):
        async with opened(store, cache, "two.tar"):
            pass
    with pytest.raises(Damaged, match="truncated"):
        async with opened(store, cache, "one.tar"):
            pass


async def test_a_large_directory_comes_in_pages(store: Path, cache: Path) -> None:
    write(store, *(member(f"d/{number:05}") for number in range(1234)))

    async with opened(store, cache) as (tree, _):
        expected = [b"%05d" % number for number in range(1234)]
        assert await names(tree, b"d") == expected

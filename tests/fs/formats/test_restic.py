"""Repositories that the real restic wrote appear as the directories that were backed up."""

import os
import shutil
from pathlib import Path

import pytest
from support.extract import content, entries, find
from support.restic import PASSWORD, Restic
from support.restic_format import found, only_tree, opened
from support.tree_comparison import differences_from
from support.trees import make_odd_tree, set_xattr

HOLE = 512 * 1024  # bytes: the blob of zeros that is never fetched
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything a file system holds: odd names, devices, attributes, times."""
    top = make_odd_tree(tmp_path_factory.mktemp("odd") / "tree")
    names = top / "names"
    for name in (b"latin-\xe9", b"\x01\x02", "\u200b\u00ad\ue000\x85".encode(), b"\x7f", b"\\x41"):
        Path(os.fsdecode(os.path.join(os.fsencode(names), name))).write_bytes(name)
    os.mkfifo(top / "fifo")
    if os.geteuid() == 0:
        os.mknod(top / "null", 0o20666, os.makedev(1, 3))
        os.mknod(top / "loop", 0o60660, os.makedev(7, 300))
    (top / "far").symlink_to("x" * 4000)
    set_xattr(top / "small", "user.note", b"\x00\xffbinary")
    set_xattr(top / "many", "user.empty", b"")
    (top / "setgid").mkdir()
    (top / "setgid").chmod(0o2770)
    os.utime(top / "fifo", ns=(0, 9_999_999_999_999_999_999))
    return top


@pytest.fixture(scope="module", params=[(1, "off"), (2, "max"), (2, "off")], ids=str)
def written(
    request: pytest.FixtureRequest, odd: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    version, compression = request.param
    store = tmp_path_factory.mktemp("store")
    Restic(store / "web", version=version).back_up(odd, "--compression", compression)
    return store


async def test_every_entry_equals_its_source_in_everything(
    written: Path, odd: Path, tmp_path: Path
) -> None:
    async with only_tree(written, tmp_path) as (tree, _):
        assert await differences_from(tree, odd) == []


async def test_the_path_is_host_and_time_and_short_id(written: Path, tmp_path: Path) -> None:
    async with opened(written, tmp_path) as (_, (backup,)):
        where, host, name = backup.path

        assert (where, host) == ("web", os.uname().nodename)
        assert name[10] == "T" and name[19] == "Z" and name[21:] == backup.notes["id"][:8]
        assert backup.has_latest


async def test_runs_of_zeros_are_never_fetched(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(64 * HOLE)
    Restic(tmp_path / "store").back_up(source)

    async with only_tree(tmp_path / "store", tmp_path / "cache") as (tree, objects):
        file_entry = await find(tree, b"sparse")
        objects.reads.clear()
        async with tree.open(file_entry) as opened_file:
            assert not any(await opened_file.read_at(5 * HOLE - 7, 2 * HOLE))
        assert objects.reads == []


async def test_each_host_and_each_repository_has_its_own_directory(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    for where in ("web", "deep/er/db"):
        restic = Restic(tmp_path / "store" / where)
        for host in ("alpha", "sla/sh", ".."):
            restic.back_up(source, "--host", host, "--time", "2020-01-02 03:04:05", "--tag", "a,b")

    async with opened(tmp_path / "store", tmp_path / "cache") as (_, backups):
        assert {backup.path[:-1] for backup in backups} == {
            (*where, host)
            for where in (("web",), ("deep", "er", "db"))
            for host in ("alpha", "sla_sh", "_.")
        }
        assert {backup.path[-1][:20] for backup in backups} == {"2020-01-02T03-04-05Z"}
        assert {backup.notes["tags"] for backup in backups} == {"a, b"}


async def test_a_repository_may_lie_at_the_top_of_the_store(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    Restic(tmp_path / "store").back_up(source, "--host", "alpha")

    async with opened(tmp_path / "store", tmp_path / "cache") as (format_, (backup,)):
        assert backup.path[:-1] == ("alpha",)
        async with format_.open(backup) as tree:
            assert await content(tree, b"note") == b"hello"


async def test_a_repository_without_snapshots_is_listed_nowhere(tmp_path: Path) -> None:
    Restic(tmp_path / "store" / "web")

    async with opened(tmp_path / "store", tmp_path / "cache") as (_, backups):
        assert backups == []


async def test_new_snapshots_show_up_and_forgotten_ones_vanish(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    restic = Restic(tmp_path / "store" / "web")
    first = restic.back_up(source)

    async with opened(tmp_path / "store", tmp_path / "cache") as (format_, before):
        (source / "new").write_bytes(b"new")
        second = restic.back_up(source)
        after = await found(format_)
        newest = max(after, key=lambda backup: backup.time_ns)
        async with format_.open(newest) as tree:
            assert await content(tree, b"new") == b"new"
        restic("forget", first)
        last = await found(format_)

    assert [len(before), len(after)] == [1, 2]
    assert [backup.notes["id"][:8] for backup in last] == [second]


async def test_a_snapshot_stays_readable_while_prune_rewrites_its_packs(tmp_path: Path) -> None:
    source = make_odd_tree(tmp_path / "source")
    restic = Restic(tmp_path / "store" / "web")
    kept = restic.back_up(source)
    (source / "doomed").write_bytes(os.urandom(5_000_000))
    doomed = restic.back_up(source)

    async with opened(tmp_path / "store", tmp_path / "cache") as (format_, backups):
        (backup,) = [one for one in backups if one.notes["id"][:8] == kept]
        async with format_.open(backup) as tree:
            (source / "doomed").unlink()
            before = {path.name for path in restic.objects("data")}
            restic("forget", doomed)
            restic("prune", "--max-unused", "0", "--repack-small")
            assert before - {path.name for path in restic.objects("data")}

            assert await differences_from(tree, source) == []


async def test_any_of_several_keys_opens_the_repository(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    restic = Restic(tmp_path / "store" / "web", password="the first one")
    restic.back_up(source)
    new = tmp_path / "new-password"
    new.write_text(PASSWORD)
    restic("key", "add", "--new-password-file", new)

    async with opened(tmp_path / "store", tmp_path / "cache") as (_, (backup,)):
        assert backup.is_complete


async def test_a_migrated_repository_has_both_encodings(tmp_path: Path) -> None:
    source = make_odd_tree(tmp_path / "source")
    restic = Restic(tmp_path / "store" / "web", version=1)
    restic.back_up(source)
    restic("migrate", "upgrade_repo_v2")
    (source / "compressible").write_bytes(b"after the migration " * 100_000)
    restic.back_up(source, "--tag", "second")

    async with opened(tmp_path / "store", tmp_path / "cache") as (format_, backups):
        (backup,) = [one for one in backups if one.notes.get("tags") == "second"]
        async with format_.open(backup) as tree:
            assert await differences_from(tree, source) == []
        assert len(backups) == 2


async def test_a_changed_tag_makes_another_snapshot_of_the_same_tree(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    restic = Restic(tmp_path / "store" / "web")
    first = restic.back_up(source)
    restic("tag", "--set", "kept")

    async with opened(tmp_path / "store", tmp_path / "cache") as (format_, (backup,)):
        assert backup.notes["tags"] == "kept"
        assert backup.notes["original"][:8] == first
        async with format_.open(backup) as tree:
            assert await content(tree, b"note") == b"hello"


async def test_what_a_killed_backup_leaves_is_ignored(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    restic = Restic(tmp_path / "store" / "web")
    restic.back_up(source)
    (snapshot,) = restic.objects("snapshots")
    shutil.copy(snapshot, f"{snapshot}-tmp-123")
    (restic.path / "locks" / ("0" * 64)).write_bytes(b"a lock of a dead process")

    async with opened(tmp_path / "store", tmp_path / "cache") as (_, backups):
        assert len(backups) == 1


async def test_the_first_s3_layout_is_read(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    restic = Restic(tmp_path / "store" / "web")
    restic.back_up(source)
    for old, new in (("keys", "key"), ("snapshots", "snapshot")):
        (restic.path / old).rename(restic.path / new)
    for pack in restic.objects("data"):
        pack.rename(restic.path / "data" / pack.name)

    async with only_tree(tmp_path / "store", tmp_path / "cache") as (tree, _):
        assert await content(tree, b"note") == b"hello"


async def test_a_backup_from_standard_input_is_one_file(tmp_path: Path) -> None:
    restic = Restic(tmp_path / "store" / "web")
    (tmp_path / "piped").write_bytes(b"piped " * 1_000_000)
    with (tmp_path / "piped").open("rb") as piped:
        restic("backup", "--stdin", "--stdin-filename", "p", stdin=piped)

    async with only_tree(tmp_path / "store", tmp_path / "cache") as (tree, _):
        assert await content(tree, b"p") == b"piped " * 1_000_000


async def test_many_small_files_cost_few_requests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for directory in range(40):
        (source / f"{directory:02}" / "below").mkdir(parents=True)
        for number in range(20):
            below = "below" if number % 2 else "."
            (source / f"{directory:02}" / below / f"{number:02}").write_bytes(os.urandom(700))
    Restic(tmp_path / "store" / "web").back_up(source)

    async with only_tree(tmp_path / "store", tmp_path / "cache") as (tree, objects):
        objects.reads.clear()
        assert await differences_from(tree, source) == []
        reads = len(objects.reads)

    assert reads < 60  # of 800 files and 81 directories


async def test_a_large_directory_comes_in_pages(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3000):
        (source / f"{number}").touch()
    Restic(tmp_path / "store" / "web").back_up(source)

    async with only_tree(tmp_path / "store", tmp_path / "cache") as (tree, _):
        root = await tree.root()
        first = await tree.children(root)
        names = [entry.name async for entry in entries(tree, root)]

        assert first.cursor is not None and len(first.entries) < 1000
        assert names == sorted(b"%d" % number for number in range(3000))
        assert (await tree.child(root, b"2999")).name == b"2999"


def make_source(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "note").write_bytes(b"hello")
    return path

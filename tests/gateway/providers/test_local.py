"""A directory as a store: the contract, and what a directory may hold that no bucket can."""

import errno
import os
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import (
    AlreadyThere,
    NotFound,
    Refused,
    Replaced,
    StoreError,
    StoreFull,
    Unreachable,
)
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.providers import open_provider
from backgate.gateway.providers.local import Local
from backgate.gateway.providers.memory import Memory
from backgate.gateway.testing.provider_contract import (
    ProviderContract,
    fill,
    keys_of,
    pages_of,
    together,
)

COMPONENTS = st.sampled_from(["a", "b", "a-", "a.b", "a0", "", ".", "..", "é", "c" * 300])
KEYS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join).filter(bool)


class TestLocal(ProviderContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Local:
        return Local(str(tmp_path))


class TestLocalWithoutExtendedAttributes(ProviderContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Local:
        return Local(str(tmp_path), use_xattrs=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    return root


@pytest.fixture
def local(root: Path) -> Local:
    return Local(str(root))


def test_a_plain_key_is_a_plain_file(local: Local, root: Path) -> None:
    local.put("data/ab/cdef", b"pack", {"mode": "33188"})

    assert (root / "data/ab/cdef").read_bytes() == b"pack"
    assert [path.name for path in root.iterdir() if path.name != ".backgate"] == ["data"]


def test_a_file_that_another_program_wrote_is_an_object(local: Local, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/f").write_bytes(b"native")

    info = local.head("d/f")

    assert (info.size, info.metadata) == (6, {})
    assert local.get("d/f", 0, 9) == b"native"
    assert keys_of(local) == ["d/f"]


def test_what_another_program_changed_is_another_version(local: Local, root: Path) -> None:
    etag = local.put("f", b"one").etag
    (root / "f").write_bytes(b"two")

    assert local.head("f").etag != etag


def test_reading_leaves_no_trace(local: Local, root: Path) -> None:
    (root / "f").write_bytes(b"1")
    local.check()

    local.head("f")
    local.get("f", 0, 1)
    local.page()
    local.uploads()
    local.delete(["absent"])

    assert [path.name for path in root.iterdir()] == ["f"]


def test_symlinks_lead_nowhere(local: Local, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)

    for key in ("link", "folder/secret"):
        with pytest.raises(NotFound):
            local.head(key)
    assert keys_of(local) == []
    local.put("folder/new", b"inside")
    local.put("link", b"inside")
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert local.get("folder/new", 0, 9) == local.get("link", 0, 9) == b"inside"


def test_other_kinds_of_files_are_no_objects(local: Local, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "empty directory/below").mkdir(parents=True)
    (root / os.fsdecode(b"not \xff UTF-8")).write_bytes(b"")
    (root / "f").write_bytes(b"")

    assert keys_of(local) == ["f"]
    assert list(local.page("", "/").prefixes) == []
    with pytest.raises(NotFound):
        local.get("fifo", 0, 1)


def test_a_key_behind_a_symlinked_root_is_found(local: Local, root: Path, tmp_path: Path) -> None:
    local.put("a", b"1")
    (tmp_path / "link").symlink_to(root)

    assert Local(str(tmp_path / "link")).get("a", 0, 1) == b"1"


def test_no_directory_stays_behind_its_last_object(local: Local, root: Path) -> None:
    local.put("a/b/c/d", b"")
    local.put("a/e", b"")

    local.delete(["a/b/c/d"])
    assert sorted(path.name for path in (root / "a").iterdir()) == ["e"]
    local.delete(["a/e"])
    assert not (root / "a").exists()


def test_the_directory_of_a_marker_is_there_as_long_as_the_marker(local: Local, root: Path) -> None:
    local.put("a/b/", b"", {"mode": "16877"})
    local.put("a/b/c", b"")

    local.delete(["a/b/c"])
    assert (root / "a/b").is_dir()
    local.delete(["a/b/"])
    assert not (root / "a").exists()


def test_a_missing_directory_is_not_an_empty_store(root: Path, local: Local) -> None:
    root.rmdir()

    with pytest.raises(NotFound, match="no such directory"):
        local.check()
    for call in (lambda: local.head("a"), lambda: local.page(), lambda: local.put("a", b"")):
        with pytest.raises(Unreachable):
            call()


def test_another_directory_at_the_same_path_is_not_believed(root: Path, local: Local) -> None:
    local.put("a", b"")
    root.rename(root.with_name("moved"))
    root.mkdir()  # as when a disk was unmounted

    with pytest.raises(Unreachable, match="another directory"):
        local.head("a")
    with pytest.raises(Unreachable, match="another directory"):
        local.check()


def test_a_directory_that_cannot_be_asked_for_is_not_missing(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(path: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")  # what a file server's restart gives

    monkeypatch.setattr("os.scandir", stale)

    with pytest.raises(Unreachable, match="Stale file handle"):
        local.check()


def test_a_file_that_changes_while_it_is_read_is_another_version(
    local: Local, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag, pread = local.put("a", b"old").etag, os.pread

    def racing(descriptor: int, length: int, offset: int) -> bytes:
        (root / "a").write_bytes(b"new")
        return pread(descriptor, length, offset)

    monkeypatch.setattr("os.pread", racing)

    with pytest.raises(Replaced, match="changed while it was read"):
        local.get("a", 0, 3, etag)


def test_a_copy_is_whole_or_is_none(
    local: Local, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put("a", b"0123456789")
    kernel = os.copy_file_range
    monkeypatch.setattr("os.copy_file_range", lambda *_: 0)  # as some kernels answer

    assert local.copy("a", "b").size == 10
    assert local.get("b", 0, 99) == b"0123456789"

    def racing(source: int, target: int, count: int, start: int) -> int:
        (root / "a").write_bytes(b"0123")
        return kernel(source, target, count, start)

    monkeypatch.setattr("os.copy_file_range", racing)
    with pytest.raises(StoreError, match="became shorter"):
        local.copy("a", "c")
    assert keys_of(local) == ["a", "b"]


def test_what_is_listed_can_be_opened(local: Local, root: Path) -> None:
    folder = root.joinpath(*["é" * 100] * 4)  # 804 bytes of UTF-8 in 403 characters
    folder.mkdir(parents=True)
    for length in (100, 110, 111, 120):
        (folder / ("é" * length)).write_bytes(b"1")

    found = keys_of(local)

    assert [len(key.encode()) for key in found] == [1004, 1024]
    assert [local.head(key).size for key in found] == [1, 1]


def test_a_key_of_the_last_characters_is_listed_across_pages(local: Local) -> None:
    keys = [f"a/{name}" for name in ("\U0010ffff", "\U0010ffff\U0010ffff", "\U0010ffffz")]
    fill(local, keys)

    listed = [info.key for page in pages_of(local, limit=1) for info in page.objects]
    shallow = [name for page in pages_of(local, "", "/", limit=1) for name in page.prefixes]

    assert listed == sorted(keys)
    assert shallow == ["a/"]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")

    with pytest.raises(NotFound):
        Local(str(tmp_path / "f")).check()


def test_what_may_not_be_read_is_refused_and_never_left_out() -> None:
    with tempfile.TemporaryDirectory() as directory:
        local = Local(directory)
        fill(local, ["closed/a", "open/b"])
        os.chmod(directory, 0o755)
        os.chmod(f"{directory}/closed", 0)
        somebody = os.geteuid() or 65534  # for root nothing is closed
        root = os.geteuid()
        os.seteuid(somebody)
        try:
            with pytest.raises(Refused):
                local.page()
            with pytest.raises(Refused):
                local.get("closed/a", 0, 1)
        finally:
            os.seteuid(root)
            os.chmod(f"{directory}/closed", 0o700)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond a mebibyte while the test runs."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_object(local: Local, root: Path, small_files: None) -> None:
    local.put("a", b"old")

    with pytest.raises(StoreFull):
        local.put("a", bytes(2 * 1024 * 1024))

    assert local.get("a", 0, 9) == b"old"
    assert list((root / ".backgate/tmp").iterdir()) == []


def test_what_a_crash_left_is_removed_by_a_later_writer(root: Path) -> None:
    folder = root / ".backgate/tmp"
    folder.mkdir(parents=True)
    for name, age in (("old", 2 * 86400), ("new", 60)):
        (folder / name).write_bytes(b"")
        then = time.time() - age
        os.utime(folder / name, (then, then))

    Local(str(root)).put("a", b"")

    assert [path.name for path in folder.iterdir()] == ["new"]


def test_metadata_that_is_not_ours_counts_as_none(local: Local, root: Path) -> None:
    local.put("a", b"", {"mode": "33188"})
    for theirs in (b"\xff not JSON", b'{"mode": "\xff"}', b'{"mode": 33188}'):
        os.setxattr(root / "a", "user.backgate.metadata", theirs)

        assert local.head("a").metadata == {}


def test_sidecars_do_not_outlive_their_objects(root: Path) -> None:
    local = Local(str(root), use_xattrs=False)
    for _ in range(3):
        local.put("a", b"", {"mode": "33188"})
    local.copy("a", "b/")

    local.delete(["a", "b/"])

    assert list((root / ".backgate/metadata").iterdir()) == []


def test_an_upload_id_cannot_name_another_directory(local: Local, root: Path) -> None:
    local.put("keep", b"1")
    (root / ".backgate/uploads").mkdir()

    for upload in ("../../keep", "..", "", "a" * 32):
        local.abort_upload("a", upload)
        with pytest.raises(NotFound):
            local.put_part("a", upload, 1, b"")

    assert keys_of(local) == ["keep"]
    assert (root / ".backgate/uploads").is_dir()


def test_a_part_that_was_changed_is_not_committed(local: Local, root: Path) -> None:
    upload = local.begin_upload("a")
    etag = local.put_part("a", upload, 1, b"data")
    (root / f".backgate/uploads/{upload}/00001").write_bytes(b"other")

    with pytest.raises(StoreError, match="no part 1"):
        local.commit_upload("a", upload, [(1, etag)])


def test_one_of_two_gateways_wins_a_conditional_put(root: Path) -> None:
    gateways = [Local(str(root)) for _ in range(8)]

    answers = together(
        lambda number: gateways[number].put("lock/", b"%d" % number, if_absent=True), 8
    )

    assert sum(isinstance(one, ObjectInfo) for one in answers) == 1
    assert sum(isinstance(one, AlreadyThere) for one in answers) == 7


@pytest.mark.slow
@given(
    keys=st.sets(KEYS, max_size=12),
    prefix=st.one_of(st.just(""), KEYS, KEYS.map(lambda key: key[:2])),
    after=st.one_of(st.just(""), KEYS),
    delimiter=st.sampled_from(["", "/", "a"]),
    limit=st.integers(1, 5),
)
def test_it_lists_as_a_bucket_in_memory_does(
    tmp_path_factory: pytest.TempPathFactory,
    keys: set[str],
    prefix: str,
    after: str,
    delimiter: str,
    limit: int,
) -> None:
    local, memory = Local(str(tmp_path_factory.mktemp("store"))), Memory()
    for key in sorted(keys, key=len):
        local.put(key, b"")
        memory.put(key, b"")

    def listed(provider: Local | Memory) -> list[tuple[list[str], list[str]]]:
        pages = pages_of(provider, prefix, delimiter, after=after, limit=limit)
        return [([info.key for info in page.objects], list(page.prefixes)) for page in pages]

    assert listed(local) == listed(memory)
    assert keys_of(local) == sorted(keys)


def test_a_url_or_a_path_names_the_directory(root: Path, local: Local) -> None:
    local.put("a", b"1")

    for url in (f"file://{root}", str(root), f"file://{root}/"):
        provider, prefix = open_provider(RepositoryConfig(name="x", url=url), None)
        assert prefix == ""
        assert provider.get("a", 0, 1) == b"1"

"""Where archives appear: every key has one place, none hides another."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as some

from backgate.fs.formats.tar.paths import is_archive, paths


@pytest.mark.parametrize(
    "key",
    ["a.tar", "x/y.tar.gz", "A.TGZ", "a.tar.bz2", "a.tbz2", "a.tbz", "a.tar.xz", "a.txz",
     "a.Tar.Zst", "a.tzst", ".tar"],
)  # fmt: skip
def test_archives_are_known_by_their_suffix(key: str) -> None:
    assert is_archive(key)


@pytest.mark.parametrize("key", ["a.tar.tmp", "a.gz", "a.zst", "tar", "a.tar/", "a.tar.lz4", ""])
def test_others_are_none(key: str) -> None:
    assert not is_archive(key)


def test_the_suffix_is_left_away() -> None:
    assert paths(["daily/etc.tar.gz", "home.TAR", "a/b/c.tzst"]) == {
        "daily/etc.tar.gz": ("daily", "etc"),
        "home.TAR": ("home",),
        "a/b/c.tzst": ("a", "b", "c"),
    }


def test_archives_of_one_name_keep_their_suffix() -> None:
    assert paths(["x.tar", "x.tar.gz", "y.tar"]) == {
        "x.tar": ("x.tar",),
        "x.tar.gz": ("x.tar.gz",),
        "y.tar": ("y",),
    }


def test_an_archive_named_like_a_directory_keeps_its_suffix() -> None:
    assert paths(["a.tar", "a/b.tar"]) == {"a.tar": ("a.tar",), "a/b.tar": ("a", "b")}


def test_a_key_that_still_stands_in_the_way_gets_a_hash() -> None:
    places = paths(["a.tar", "a/b.tar", "a.tar/c.tar"])

    assert places["a/b.tar"] == ("a", "b")
    assert places["a.tar/c.tar"] == ("a.tar", "c")
    assert places["a.tar"][0].startswith("a.tar~")


def test_deep_keys_take_memory_for_their_names_only() -> None:
    keys = [f"{number}/" + "a/" * 500 + "b.tar" for number in range(200)]
    tracemalloc.start()
    try:
        paths(keys)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 100_000 * len(keys)


def test_keys_that_no_file_system_takes_get_a_safe_name() -> None:
    keys = ["/lead.tar", "a//b.tar", "../up.tar", "./here.tar", "a/" + "n" * 300 + ".tar"]

    for path in paths(keys).values():
        assert all(part not in ("", ".", "..") and len(part) <= 255 for part in path)


PARTS = some.sampled_from(["a", "b", "a.tar", "a.tar.gz", "", "..", "A", "a~", "ü" * 130])
SUFFIX = some.sampled_from([".tar", ".tgz", ".TAR", ".tar.gz"])
KEYS = some.builds(lambda parts, end: "/".join(parts) + end, some.lists(PARTS, min_size=1), SUFFIX)


@given(some.lists(KEYS, unique=True, max_size=12))
def test_no_two_keys_share_a_place_and_order_means_nothing(keys: list[str]) -> None:
    places = paths(keys)

    assert len(set(places.values())) == len(keys)
    assert paths(reversed(keys)) == places
    for path in places.values():
        assert all(part and len(part.encode()) <= 255 for part in path)
        assert not any(other[: len(path)] == path for other in places.values() if other != path)

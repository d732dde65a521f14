"""What every provider must do, for the tests of Backgate and of any package that adds a provider.

A test file instantiates the class with a fixture. Where a store is different and says so in its
`abilities`, the suite holds it to what it says.
"""

import threading
import time
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest

from backgate.gateway.errors import (
    AlreadyThere,
    InvalidKey,
    NotFound,
    Replaced,
    StoreError,
    Unreachable,
    Unsupported,
)
from backgate.gateway.provider import ObjectInfo, Page, Provider

RACERS = 16
TOGETHER = 8
ATTEMPTS = 10

T = TypeVar("T")

# Names that tools, people and attackers give. Each is one component or more.
ODD_KEYS = {
    "composed": unicodedata.normalize("NFC", "é.txt"),
    "decomposed": unicodedata.normalize("NFD", "é.txt"),
    "emoji": "😀/❄",
    "highest character": "a\U0010ffffb",
    "not a character": "a\ufffeb",
    "blanks": " a  b ",
    "percent": "100%",
    "quoted slash": "a%2Fb",
    "plus": "a+b c",
    "markup": "a&b<c>\"d'",
    "query": "a?b#c=d&e",
    "header": "a;b:c,d@e$f",
    "tab": "a\tb",
    "newline": "a\nb",
    "carriage return": "a\r\nb",
    "control": "a\x01\x1fb",
    "delete": "a\x7fb",
    "nul": "a\x00b",
    "backslash": "a\\b",
    "tilde": "~a~",
    "star": "a*[b]{c}",
    "dots": "...",
    "dot file": ".hidden",
    "dot": "a/./b",
    "dot dot": "a/../b",
    "leading dot dot": "../a",
    "only dot dot": "..",
    "empty component": "a//b",
    "leading slash": "/a",
    "two leading slashes": "//a",
    "only a slash": "/",
    "marker": "directory/",
    "component of 255": "c" * 255,
    "component of 256": "c" * 256,
    "component of 300": "d/" + "c" * 300 + "/e",
    "key of 1024": "/".join(["d" * 127] * 8),
    "key of 1025": "/".join(["d" * 127] * 8) + "x",
    "deep": "/".join("abcdefgh" * 20),
    "our own directory": ".backgate/uploads/x",
    "somebody's directory": ".uploads/x",
    "empty": "",
    "not UTF-8": "a\udcffb",
}


def keys_of(provider: Provider, prefix: str = "", **asked: Any) -> list[str]:
    """All keys below `prefix`, page by page."""
    return [info.key for page in pages_of(provider, prefix, **asked) for info in page.objects]


def pages_of(provider: Provider, prefix: str = "", delimiter: str = "", **asked: Any) -> list[Page]:
    pages: list[Page] = []
    token = None
    while not pages or token is not None:
        pages.append(provider.page(prefix, delimiter, token=token, **asked))
        token = pages[-1].token
        asked.pop("after", None)
        assert len(pages) < 1000
    return pages


def persistently(call: Callable[[], T]) -> T:
    """Return what `call` returns, asked again where the store says that this may help."""
    for _ in range(ATTEMPTS - 1):
        with suppress(Unreachable):
            return call()
    return call()


def fill(provider: Provider, keys: Iterable[str]) -> None:
    for key in keys:
        provider.put(key, key.encode())


def together(call: Callable[[int], object], count: int) -> list[object]:
    """Return what `count` threads got that all began at the same moment; errors as values."""
    start = threading.Barrier(count)

    def run(number: int) -> object:
        start.wait()
        try:
            return call(number)
        except StoreError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class ProviderContract:
    """Instantiate with a fixture `provider`: an empty store."""

    def test_the_store_is_there(self, provider: Provider) -> None:
        provider.check()

    def test_an_object_reads_back(self, provider: Provider) -> None:
        before = time.time_ns()
        stored = provider.put("a/b", b"hello", {"mode": "33188"})

        found = provider.head("a/b")
        assert (found.key, found.size, found.metadata) == ("a/b", 5, {"mode": "33188"})
        assert (stored.key, stored.size, stored.etag) == ("a/b", 5, found.etag)
        assert stored.metadata == found.metadata
        assert abs(found.mtime_ns - before) < 5 * 10**9
        assert abs(found.mtime_ns - stored.mtime_ns) <= 10**9
        assert provider.get("a/b", 0, 5) == b"hello"

    def test_an_absent_object_is_not_found(self, provider: Provider) -> None:
        calls: list[Callable[[], object]] = [
            lambda: provider.head("absent"),
            lambda: provider.get("absent", 0, 5),
            lambda: provider.get("absent", 0, 5, "etag"),
        ]
        if provider.abilities.copies_objects:
            calls.append(lambda: provider.copy("absent", "target"))
        for call in calls:
            with pytest.raises(NotFound) as caught:
                call()
            assert caught.value.key == "absent"

    def test_below_a_file_there_is_nothing(self, provider: Provider) -> None:
        provider.put("a", b"")

        with pytest.raises(NotFound):
            provider.head("a/b")
        with pytest.raises(NotFound):
            provider.get("a/b", 0, 1)
        assert keys_of(provider, "a/") == []

    def test_a_prefix_is_not_an_object(self, provider: Provider) -> None:
        provider.put("a/b", b"")

        with pytest.raises(NotFound):
            provider.head("a")
        with pytest.raises(NotFound):
            provider.get("a", 0, 1)
        if provider.abilities.markers_are_objects:
            with pytest.raises(NotFound):
                provider.head("a/")

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, 10), (0, 1), (3, 7), (9, 10), (5, 100), (0, 100), (10, 11), (50, 60), (4, 4), (7, 3)],
    )
    def test_a_range_is_a_slice(self, start: int, stop: int, provider: Provider) -> None:
        data = b"0123456789"
        etag = provider.put("a", data).etag

        assert provider.get("a", start, stop) == data[start:stop]
        assert provider.get("a", start, stop, etag) == data[start:stop]

    def test_an_empty_object_reads_as_nothing(self, provider: Provider) -> None:
        etag = provider.put("a", b"").etag

        assert provider.head("a").size == 0
        assert provider.get("a", 0, 1) == b""
        assert provider.get("a", 0, 1, etag) == b""

    def test_a_version_that_was_replaced_is_not_read(self, provider: Provider) -> None:
        old = provider.put("a", b"old version")
        new = provider.put("a", b"new")

        for start in (0, 5):  # the second lies behind the end of the new version
            with pytest.raises(Replaced):
                provider.get("a", start, 11, old.etag)
        assert provider.get("a", 0, 11, new.etag) == b"new"

    def test_the_etag_changes_with_the_content(self, provider: Provider) -> None:
        etags = [provider.put("a", b"%02d" % number).etag for number in range(20)]

        assert len(set(etags)) == len(etags)
        assert '"' not in "".join(etags)

    def test_a_put_replaces_content_and_metadata(self, provider: Provider) -> None:
        provider.put("a", b"long content", {"one": "1"})
        provider.put("a", b"short", {"two": "2"})

        assert provider.head("a").metadata == {"two": "2"}
        assert provider.get("a", 0, 100) == b"short"

    @pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: memoryview(data)[0:]])
    def test_any_kind_of_body_is_stored(
        self, kind: Callable[[bytes], bytes], provider: Provider
    ) -> None:
        data = bytes(range(256)) * 5000

        provider.put("a", kind(data))

        assert provider.get("a", 0, len(data)) == data

    @pytest.mark.parametrize(
        "text",
        [
            "1",
            "",
            "é",
            "日本語 😀",
            " blanks ",
            "a  b",
            "a=b; c,d",
            "=?UTF-8?B?w6k=?=",
            "%C3",
            "\t",
            "x" * 250,
        ],
    )
    def test_metadata_reads_back(self, text: str, provider: Provider) -> None:
        provider.put("a", b"", {"name": text, "other-name": "1"})

        assert provider.head("a").metadata == {"name": text, "other-name": "1"}

    def test_metadata_names_are_lower_case(self, provider: Provider) -> None:
        stored = provider.put("a", b"", {"Mode": "X"})

        assert provider.head("a").metadata == stored.metadata == {"mode": "X"}

    def test_metadata_beyond_the_limit_is_refused(self, provider: Provider) -> None:
        too_long = "x" * provider.abilities.limits.metadata_max

        with pytest.raises(StoreError, match="metadata"):
            provider.put("a", b"", {"name": too_long})
        assert keys_of(provider) == []

    @pytest.mark.parametrize("key", ODD_KEYS.values(), ids=ODD_KEYS.keys())
    def test_a_key_is_kept_exactly_or_refused(self, key: str, provider: Provider) -> None:
        if provider.abilities.fault(key) is not None:
            with pytest.raises(InvalidKey) as caught:
                provider.put(key, b"")
            with pytest.raises(InvalidKey):
                provider.begin_upload(key)
            provider.put("fine", b"")
            with pytest.raises(InvalidKey if provider.abilities.copies_objects else Unsupported):
                provider.copy("fine", key)
            assert caught.value.key == key
            assert keys_of(provider) == ["fine"]
            return

        body = b"" if provider.abilities.fault(key, 4) else b"body"
        provider.put(key, body)

        assert provider.head(key).key == key
        assert provider.get(key, 0, 9) == body
        assert keys_of(provider) == [key]
        assert keys_of(provider, key[:1]) == [key]
        assert keys_of(provider, key) == [key]
        shallow = provider.page("", "/")
        first = key.partition("/")
        names = [info.key for info in shallow.objects] + list(shallow.prefixes)
        assert names == ["".join(first[:2])]
        if provider.abilities.copies_objects:
            provider.copy(key, "copy")
            assert provider.get("copy", 0, 9) == body
        assert provider.delete([key, "copy"]) == {}
        assert keys_of(provider) == []
        with pytest.raises(NotFound):
            provider.head(key)

    def test_odd_keys_are_deleted_together(self, provider: Provider) -> None:
        keys = [key for key in ODD_KEYS.values() if provider.abilities.fault(key) is None]
        fill(provider, [key for key in keys if not key.endswith("/")])

        assert provider.delete(keys) == {}

        assert keys_of(provider) == []

    def test_a_file_and_a_directory_of_one_name_live_together(self, provider: Provider) -> None:
        fill(provider, ["first", "first/x", "second/x", "second", "second/x/y"])

        assert sorted(keys_of(provider)) == ["first", "first/x", "second", "second/x", "second/x/y"]
        for key in keys_of(provider):
            assert provider.get(key, 0, 99) == key.encode()
        page = provider.page("", "/")
        assert sorted(info.key for info in page.objects) == ["first", "second"]
        assert sorted(page.prefixes) == ["first/", "second/"]
        provider.put("first", b"again")
        assert provider.get("first", 0, 99) == b"again"
        provider.delete(["first", "second/x"])
        assert sorted(keys_of(provider)) == ["first/x", "second", "second/x/y"]

    def test_a_marker_is_an_object_of_its_own(self, provider: Provider) -> None:
        provider.put("a/", b"", {"mode": "16877"})
        provider.put("a/b/", b"")
        provider.put("a/file", b"1")

        kept = {"mode": "16877"} if provider.abilities.markers_are_objects else {}
        assert provider.head("a/").metadata == kept
        assert sorted(keys_of(provider)) == ["a/", "a/b/", "a/file"]
        page = provider.page("a/", "/")
        assert sorted(info.key for info in page.objects) == ["a/", "a/file"]
        assert page.prefixes == ["a/b/"]
        provider.delete(["a/b/"])
        assert sorted(keys_of(provider)) == ["a/", "a/file"]
        provider.delete(["a/"])
        assert keys_of(provider) == ["a/file"]

    def test_a_conditional_put_never_replaces(self, provider: Provider) -> None:
        if not provider.abilities.conditional_put:
            with pytest.raises(Unsupported):
                provider.put("a", b"", if_absent=True)
            return

        provider.put("a", b"first", if_absent=True)
        with pytest.raises(AlreadyThere):
            provider.put("a", b"second", if_absent=True)
        assert provider.get("a", 0, 99) == b"first"
        provider.delete(["a"])
        provider.put("a", b"third", if_absent=True)
        assert provider.get("a", 0, 99) == b"third"

    def test_of_many_conditional_puts_one_wins(self, provider: Provider) -> None:
        if not provider.abilities.conditional_put:
            return

        answers = together(
            lambda number: provider.put("lock", b"%d" % number, if_absent=True), RACERS
        )

        winners = [number for number, one in enumerate(answers) if isinstance(one, ObjectInfo)]
        assert len(winners) == 1
        assert all(
            isinstance(one, AlreadyThere) for one in answers if not isinstance(one, ObjectInfo)
        )
        assert provider.get("lock", 0, 9) == b"%d" % winners[0]

    def test_a_listing_is_the_same_whatever_the_page_size(self, provider: Provider) -> None:
        keys = ["a", "a-", "a.b", "a/x", "a/y/z", "a0", "b/1", "b/2", "b/3", "c", "é", "~"]
        fill(provider, keys)

        for limit in range(1, len(keys) + 2):
            found = keys_of(provider, limit=limit)
            assert sorted(found) == sorted(keys)
            if provider.abilities.lists_in_order:
                assert found == sorted(keys)
            assert all(len(page.objects) <= limit for page in pages_of(provider, limit=limit))

    def test_a_listing_by_delimiter_is_the_same_whatever_the_page_size(
        self, provider: Provider
    ) -> None:
        keys = ["a", "a-/1", "a/x", "a/y/z", "a0", "b/1", "b/2", "b/c/3", "c", "d/e/f/g"]
        fill(provider, keys)

        for limit in range(1, 9):
            pages = pages_of(provider, "", "/", limit=limit)
            objects = [info.key for page in pages for info in page.objects]
            prefixes = [prefix for page in pages for prefix in page.prefixes]
            assert sorted(objects) == ["a", "a0", "c"]
            assert sorted(prefixes) == ["a-/", "a/", "b/", "d/"]

    def test_a_prefix_need_not_end_at_a_slash(self, provider: Provider) -> None:
        fill(provider, ["ab", "abc/d", "abd", "b", "abc/e/f"])

        assert sorted(keys_of(provider, "ab")) == ["ab", "abc/d", "abc/e/f", "abd"]
        assert sorted(keys_of(provider, "abc")) == ["abc/d", "abc/e/f"]
        assert keys_of(provider, "abc/e") == ["abc/e/f"]
        assert keys_of(provider, "nothing/") == []
        page = provider.page("ab", "/")
        assert sorted(info.key for info in page.objects) == ["ab", "abd"]
        assert page.prefixes == ["abc/"]

    def test_a_listing_starts_behind_a_key(self, provider: Provider) -> None:
        keys = [f"d/{number:02}" for number in range(10)]
        fill(provider, [*keys, "e"])

        assert sorted(keys_of(provider, after="d/04")) == [*keys[5:], "e"]
        assert sorted(keys_of(provider, "d/", after="d/04")) == keys[5:]
        paged = keys_of(provider, "d/", after="d/04", limit=2)
        if provider.abilities.lists_in_order:
            assert paged == keys[5:]
        else:  # what lies before it may come with later pages
            assert set(keys[5:]) <= set(paged) <= set(keys)
        assert sorted(keys_of(provider, after="d/045")) == [*keys[5:], "e"]
        assert keys_of(provider, after="e") == []

    def test_a_listing_says_what_head_says(self, provider: Provider) -> None:
        provider.put("a/b", b"hello", {"mode": "33188"})

        (info,) = provider.page().objects

        found = provider.head("a/b")
        assert (info.key, info.size, info.etag) == ("a/b", 5, found.etag)
        assert abs(info.mtime_ns - found.mtime_ns) < 10**9
        assert info.metadata is None

    def test_an_empty_store_lists_nothing(self, provider: Provider) -> None:
        assert list(provider.page().objects) == []
        assert provider.page().token is None

    def test_a_prefix_without_keys_is_forgotten_where_the_store_says_so(
        self, provider: Provider
    ) -> None:
        fill(provider, ["a/b/c", "d"])

        provider.delete(["a/b/c"])

        expected = [] if provider.abilities.forgets_prefixes else ["a/"]
        assert list(provider.page("", "/").prefixes) == expected
        assert keys_of(provider) == ["d"]

    def test_deleting_what_is_absent_is_no_error(self, provider: Provider) -> None:
        provider.put("a", b"")

        assert provider.delete(["a", "b", "c/d"]) == {}
        assert provider.delete(["a"]) == {}
        assert provider.delete([]) == {}
        assert keys_of(provider) == []

    def test_deleting_leaves_the_rest(self, provider: Provider) -> None:
        keys = [f"d{number % 3}/{number}" for number in range(30)]
        fill(provider, keys)

        assert provider.delete(keys[:29]) == {}

        assert keys_of(provider) == [keys[29]]

    def test_a_copy_keeps_metadata_or_replaces_it(self, provider: Provider) -> None:
        provider.put("a", b"data", {"mode": "1", "ü".encode().hex(): "é"})
        if not provider.abilities.copies_objects:
            with pytest.raises(Unsupported):
                provider.copy("a", "b/c")
            return

        kept = provider.copy("a", "b/c")
        replaced = provider.copy("a", "d", {"mode": "2"})
        onto_itself = provider.copy("a", "a", {"mode": "3"})

        assert kept.metadata == provider.head("b/c").metadata == {"mode": "1", "c3bc": "é"}
        assert (kept.key, kept.size) == ("b/c", 4)
        assert replaced.metadata == provider.head("d").metadata == {"mode": "2"}
        assert onto_itself.metadata == provider.head("a").metadata == {"mode": "3"}
        assert [provider.get(key, 0, 9) for key in ("a", "b/c", "d")] == [b"data"] * 3

    def test_an_upload_becomes_the_object_its_parts_make(self, provider: Provider) -> None:
        size = max(1024, provider.abilities.limits.part_min)
        blocks = [bytes([number]) * size for number in (1, 2)] + [b"end"]
        upload = provider.begin_upload("a/b", {"mode": "33188", "name": "é"})
        etags = {
            number: provider.put_part("a/b", upload, number, memoryview(blocks[number - 1]))
            for number in (3, 1, 2)  # out of order
        }

        assert keys_of(provider) == []
        info = provider.commit_upload("a/b", upload, [(n, etags[n]) for n in (1, 2, 3)])

        found = provider.head("a/b")
        assert (info.key, info.size, info.etag) == ("a/b", 2 * size + 3, found.etag)
        assert info.metadata == found.metadata == {"mode": "33188", "name": "é"}
        assert provider.get("a/b", 0, info.size) == b"".join(blocks)
        assert provider.get("a/b", size - 2, size + 2, info.etag) == b"\1\1\2\2"
        assert keys_of(provider) == ["a/b"]
        assert list(provider.uploads()) == []

    def test_a_part_sent_again_replaces_the_first(self, provider: Provider) -> None:
        upload = provider.begin_upload("a")
        provider.put_part("a", upload, 1, b"first")
        etag = provider.put_part("a", upload, 1, b"second")

        provider.commit_upload("a", upload, [(1, etag)])

        assert provider.get("a", 0, 99) == b"second"

    def test_a_commit_replaces_the_object(self, provider: Provider) -> None:
        provider.put("a", b"old", {"old": "1"})
        upload = provider.begin_upload("a")
        etag = provider.put_part("a", upload, 7, b"new")

        provider.commit_upload("a", upload, [(7, etag)])

        assert provider.get("a", 0, 99) == b"new"
        assert provider.head("a").metadata == {}

    def test_a_conditional_commit_never_replaces(self, provider: Provider) -> None:
        if not provider.abilities.conditional_put:
            return
        provider.put("a", b"old")
        upload = provider.begin_upload("a")
        etag = provider.put_part("a", upload, 1, b"new")

        with pytest.raises(AlreadyThere):
            provider.commit_upload("a", upload, [(1, etag)], if_absent=True)
        assert provider.get("a", 0, 99) == b"old"
        provider.abort_upload("a", upload)

        upload = provider.begin_upload("b")
        etag = provider.put_part("b", upload, 1, b"new")
        provider.commit_upload("b", upload, [(1, etag)], if_absent=True)
        assert provider.get("b", 0, 99) == b"new"

    def test_an_aborted_upload_is_gone(self, provider: Provider) -> None:
        upload = provider.begin_upload("a")
        etag = provider.put_part("a", upload, 1, b"data")

        provider.abort_upload("a", upload)
        provider.abort_upload("a", upload)

        with pytest.raises(NotFound):
            provider.commit_upload("a", upload, [(1, etag)])
        with pytest.raises(NotFound):
            provider.put_part("a", upload, 2, b"data")
        assert keys_of(provider) == []
        assert list(provider.uploads()) == []

    def test_an_upload_is_committed_once(self, provider: Provider) -> None:
        upload = provider.begin_upload("a")
        etag = provider.put_part("a", upload, 1, b"data")
        committed = provider.commit_upload("a", upload, [(1, etag)])

        with suppress(NotFound):  # some stores remember, and say again that it is done
            assert provider.commit_upload("a", upload, [(1, etag)]).etag == committed.etag
        provider.abort_upload("a", upload)
        assert provider.get("a", 0, 9) == b"data"

    def test_a_commit_without_one_of_its_parts_fails(self, provider: Provider) -> None:
        upload = provider.begin_upload("a")
        etag = provider.put_part("a", upload, 1, b"data")

        with pytest.raises(StoreError):
            provider.commit_upload("a", upload, [(1, etag), (2, etag)])
        assert keys_of(provider) == []

    def test_pending_uploads_are_told(self, provider: Provider) -> None:
        before = time.time_ns()
        first = provider.begin_upload("a/1")
        second = provider.begin_upload("a/1")
        other = provider.begin_upload("b/2")

        pending = provider.uploads()

        assert sorted((one.key, one.upload) for one in pending) == sorted(
            [("a/1", first), ("a/1", second), ("b/2", other)]
        )
        assert all(abs(one.begun_ns - before) < 5 * 10**9 for one in pending)
        assert [one.upload for one in provider.uploads("b/")] == [other]
        assert keys_of(provider) == []

    def test_parts_are_copied_from_objects(self, provider: Provider) -> None:
        size = max(1024, provider.abilities.limits.part_min)
        source = bytes(range(256)) * (2 * size // 256 + 1)
        provider.put("source", source)
        upload = provider.begin_upload("a")
        if not provider.abilities.copies_parts:
            with pytest.raises(Unsupported):
                provider.copy_part("a", upload, 1, "source", 0, size)
            return

        first = provider.copy_part("a", upload, 1, "source", 1, size + 1)
        second = provider.put_part("a", upload, 2, b"end")
        provider.commit_upload("a", upload, [(1, first), (2, second)])

        assert provider.get("a", 0, size + 9) == source[1 : size + 1] + b"end"

    def test_a_part_of_another_version_is_not_copied(self, provider: Provider) -> None:
        size = max(1024, provider.abilities.limits.part_min)
        if not provider.abilities.copies_parts:
            return
        old = provider.put("source", b"1" * size)
        new = provider.put("source", b"2" * size)
        upload = provider.begin_upload("a")

        with pytest.raises(Replaced):
            provider.copy_part("a", upload, 1, "source", 0, size, old.etag)
        part = provider.copy_part("a", upload, 1, "source", 0, size, new.etag)

        provider.commit_upload("a", upload, [(1, part)])
        assert provider.get("a", 0, size) == b"2" * size

    def test_a_part_of_an_absent_object_is_not_found(self, provider: Provider) -> None:
        upload = provider.begin_upload("a")

        with pytest.raises(NotFound if provider.abilities.copies_parts else Unsupported):
            provider.copy_part("a", upload, 1, "absent", 0, 1)

    def test_many_threads_work_at_once(self, provider: Provider) -> None:
        def work(number: int) -> object:
            for turn in range(5):
                data = b"%d %d" % (number, turn)
                provider.put(f"d{turn}/{number}", data)
                assert provider.get(f"d{turn}/{number}", 0, 99) == data
                persistently(partial(provider.put, "contended", data))
                assert persistently(partial(provider.get, "contended", 0, 99))
                if turn % 2:
                    provider.delete([f"d{turn}/{number}"])
            return None

        assert together(work, TOGETHER) == [None] * TOGETHER

        assert len(keys_of(provider)) == 3 * TOGETHER + 1

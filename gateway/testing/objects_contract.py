"""What every provider must do with single objects."""

import time
from collections.abc import Callable
from functools import partial

import pytest

from backgate.gateway.errors import (
    AlreadyThere,
    NotAsSent,
    NotFound,
    Replaced,
    StoreError,
    Unsupported,
)
from backgate.gateway.provider import ObjectInfo, Provider
from backgate.gateway.testing.asking import fill, keys_of, persistently, together

RACERS = 16
TOGETHER = 8


class ObjectsContract:
    """Bytes, versions, copies and deletions; with a fixture `provider`: an empty store."""

    def test_the_store_is_there(self, provider: Provider) -> None:
        provider.check()

    def test_an_object_reads_back(self, provider: Provider) -> None:
        before = time.time_ns()
        stored = provider.put("a/b", b"hello", {"mode": "33188"})
        took_ns = time.time_ns() - before

        found = provider.head("a/b")
        assert (found.key, found.size, found.metadata) == ("a/b", 5, {"mode": "33188"})
        assert (stored.key, stored.size, stored.etag) == ("a/b", 5, found.etag)
        assert stored.metadata == found.metadata
        assert abs(found.mtime_ns - before) < took_ns + 5 * 10**9
        assert abs(found.mtime_ns - stored.mtime_ns) <= took_ns + 10**9
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

    def test_a_body_that_is_not_its_checksum_is_refused(self, provider: Provider) -> None:
        if not provider.checksums:
            with pytest.raises(Unsupported):
                provider.put_damaged("a", "md5")
            return

        with pytest.raises(NotAsSent):
            provider.put_damaged("a", provider.checksums[0])
        assert keys_of(provider) == []

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

    def test_only_the_version_that_is_meant_is_deleted(self, provider: Provider) -> None:
        old = provider.put("a", b"old").etag
        if not provider.abilities.conditional_delete:
            with pytest.raises(Unsupported):
                provider.delete_version("a", old)
            assert provider.get("a", 0, 99) == b"old"
            return
        new = provider.put("a", b"new").etag
        beside = provider.put("b", b"new").etag

        with pytest.raises(Replaced):
            provider.delete_version("a", old)
        assert provider.get("a", 0, 99) == b"new"
        provider.delete_version("a", new)
        provider.delete_version("a", new)
        assert keys_of(provider) == ["b"]
        listed = provider.page().objects[0]
        assert provider.head("b").etag == listed.etag == beside
        provider.delete_version("b", listed.etag)
        assert keys_of(provider) == []

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

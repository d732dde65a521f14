"""What every provider must do with keys, and with listings of them."""

import pytest

from backgate.gateway.errors import (
    InvalidKey,
    NotFound,
    Unsupported,
)
from backgate.gateway.provider import Provider
from backgate.gateway.testing.asking import fill, keys_of, pages_of
from backgate.gateway.testing.odd_keys import ODD_KEYS


class NamesContract:
    """Odd keys and listings; with a fixture `provider`: an empty store."""

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

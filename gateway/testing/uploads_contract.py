"""What every provider must do with multipart uploads."""

import time
from contextlib import suppress

import pytest

from backgate.gateway.errors import (
    AlreadyThere,
    NotFound,
    Replaced,
    StoreError,
    Unsupported,
)
from backgate.gateway.provider import Provider
from backgate.gateway.testing.asking import keys_of


class UploadsContract:
    """Uploads and their parts; with a fixture `provider`: an empty store."""

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
        took_ns = time.time_ns() - before

        pending = provider.uploads()

        assert sorted((one.key, one.upload) for one in pending) == sorted(
            [("a/1", first), ("a/1", second), ("b/2", other)]
        )
        assert all(abs(one.begun_ns - before) < took_ns + 5 * 10**9 for one in pending)
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

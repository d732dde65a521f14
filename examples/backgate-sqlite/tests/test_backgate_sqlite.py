"""The contract of a provider, for the one in this package: all there is to do is a fixture."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from backgate_sqlite import CHUNK, SQLite

from backgate.gateway.errors import StoreError
from backgate.gateway.testing.provider_contract import ProviderContract


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[SQLite]:
    store = SQLite(str(tmp_path / "store.db"))
    yield store
    store.close()


class TestSQLite(ProviderContract):
    """Every test of the contract, with the fixture above."""


def test_any_range_over_rows_of_any_length_is_a_slice(provider: SQLite) -> None:
    parts = [bytes([number]) * size for number, size in enumerate((CHUNK + 1, 3, 2 * CHUNK - 1))]
    upload = provider.begin_upload("a")
    etags = [
        (number, provider.put_part("a", upload, number, part))
        for number, part in enumerate(parts, 1)
    ]
    provider.commit_upload("a", upload, etags)

    whole = b"".join(parts)
    for start in (0, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 4, 2 * CHUNK, len(whole) - 1):
        for length in (1, 5, CHUNK, len(whole)):
            assert provider.get("a", start, start + length) == whole[start : start + length]


def test_a_version_that_is_gone_leaves_nothing_behind(provider: SQLite) -> None:
    for _ in range(3):
        provider.put("a", b"x" * 3 * CHUNK)
    provider.copy("a", "a", {"mode": "1"})
    provider.abort_upload("b", provider.begin_upload("b"))

    assert provider._db.execute("SELECT count(*) FROM chunks").fetchone() == (3,)
    assert provider.delete(["a"]) == {}
    assert provider._db.execute("SELECT count(*) FROM chunks").fetchone() == (0,)


def test_what_was_stored_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    first, second = SQLite(str(tmp_path / "store.db")), SQLite(str(tmp_path / "store.db"))
    first.put("a", b"data", {"mode": "1"})

    assert second.get("a", 0, 9) == b"data"
    assert second.head("a").metadata == {"mode": "1"}
    first.close()
    second.close()


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("this is something else\n" * 100)

    with pytest.raises(StoreError, match=r"store.db: file is not a database"):
        SQLite(str(tmp_path / "store.db"))

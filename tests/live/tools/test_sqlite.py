"""SQLite with its database on the path, with a rollback journal."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.gateway import Gateway

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]

TRANSACTIONS = 20
ROWS = 200  # in each


def test_a_database_with_a_rollback_journal_lives_on_the_path(mounted: Gateway) -> None:
    path = mounted.repository / "catalogue.db"

    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        database.execute("CREATE TABLE files (number INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        for number in range(TRANSACTIONS):
            database.execute("BEGIN")
            rows = [(None, f"transaction {number} row {row}") for row in range(ROWS)]
            database.executemany("INSERT INTO files VALUES (?, ?)", rows)
            database.execute("COMMIT" if number % 4 else "ROLLBACK")
        database.execute("DELETE FROM files WHERE number % 3 = 0")
        database.execute("VACUUM")
    with closing(sqlite3.connect(path)) as database, closing(sqlite3.connect(path)) as other:
        database.execute("UPDATE files SET name = name || ' changed' WHERE number % 3 = 1")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("PRAGMA busy_timeout = 0")
            other.execute("DELETE FROM files")
        database.commit()
    (status,) = mounted.statuses()
    assert status["requests"]["put"] <= 3  # the database, when it was closed: no journals
    mounted.mount_elsewhere()

    assert [one.name for one in mounted.repository.iterdir()] == ["catalogue.db"]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count, changed = database.execute(
            "SELECT count(*), sum(name LIKE '% changed') FROM files"
        ).fetchone()
    total = (TRANSACTIONS - TRANSACTIONS // 4) * ROWS
    assert (count, changed) == (total - total // 3, total // 3 + (total % 3 > 0))
    mounted.umount()


def test_a_transaction_that_a_crash_cut_off_is_rolled_back(mounted: Gateway) -> None:
    path = mounted.repository / "catalogue.db"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("CREATE TABLE files (number INTEGER PRIMARY KEY, name BLOB)")
    database.execute("PRAGMA cache_size = 10")  # pages: the transaction is written before its end
    for name in ("first", "second"):
        database.execute("INSERT INTO files (name) VALUES (?)", (name,))
    database.execute("BEGIN")
    database.executemany("INSERT INTO files (name) VALUES (zeroblob(?))", [(4000,)] * ROWS)
    assert Path(f"{path}-journal").stat().st_size > 0

    mounted.kill()
    with suppress(sqlite3.Error):
        database.close()
    mounted.mount()

    with closing(sqlite3.connect(path)) as again:
        assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = again.execute("SELECT name FROM files").fetchall()
    assert names == [("first",), ("second",)]
    mounted.umount()

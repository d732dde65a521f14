"""What the index's SQL is spoken to: a connection of SQLite, or of PostgreSQL made to look like it.

One set of statements serves both. What they may say is written in `docs/shared-index.md`.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Corrupt(sqlite3.DatabaseError):
    """The index holds what nobody can have put there."""


class Rows(Protocol):
    """The result of one statement."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""

    def fetchone(self) -> Any:
        """Return the next row as a tuple, None when there is none."""

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """A connection; values are `int`, `str`, `bytes` and None, and `?` stands for one of them."""

    @property
    def in_transaction(self) -> bool:
        """True when a transaction was begun and has not ended."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        """Run one statement many times."""

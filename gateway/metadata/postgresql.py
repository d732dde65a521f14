"""The edge to psycopg: connections that look like SQLite's, kept open, their errors translated.

psycopg is an extra, and is imported when the first connection is made.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from backgate.gateway.errors import AlreadyThere, ConfigError, StoreError, Unreachable
from backgate.gateway.metadata.database import Rows

if TYPE_CHECKING:
    import psycopg

EXTRA = "backgate[postgresql]"
DEFAULTS = {  # of libpq, unless the URL says otherwise: a peer that is gone is noticed
    "connect_timeout": "10",  # seconds
    "keepalives_idle": "10",  # seconds
    "keepalives_interval": "5",  # seconds
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",  # milliseconds
    "application_name": "backgate",
}
MISSING = ("42P01", "3F000")  # SQLSTATEs: undefined table, invalid schema name
MADE = ("23505", "42P06", "42P07", "42710")  # somebody else has made it in this moment
PASSING = ("08", "40", "53", "55P03", "57", "58", "25006")  # SQLSTATEs, or how they begin:
# connection, serialization, resources, lock, shutdown, I/O, and a standby that may be promoted


class TablesMissing(Unreachable):
    """The tables are not there: never made, or dropped while they were in use."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the database is, and how to get in."""

    url: str  # without a password
    schema: str
    password: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.url.partition('?')[0]} ({self.schema})"


class Connection:
    """A `Database` in PostgreSQL; every statement outside a transaction is committed at once."""

    def __init__(self, server: Server) -> None:
        self._name = server.name
        self._psycopg = _psycopg()
        try:
            self._raw = _connect(server)
        except self._psycopg.Error as error:
            raise Unreachable(f"{self._name}: {_first_line(error)}") from error

    @property
    def in_transaction(self) -> bool:
        idle = self._psycopg.pq.TransactionStatus.IDLE
        return not self._raw.closed and self._raw.info.transaction_status != idle

    @property
    def is_usable(self) -> bool:
        """True when it is open and in no transaction."""
        return not self._raw.closed and not self.in_transaction

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        """Run one statement. Raises `Unreachable` when it may be tried again, `StoreError`."""
        try:
            return self._raw.execute(_translated(sql), parameters or None, binary=True)
        except self._psycopg.Error as error:
            raise self._translated(error) from error
        except UnicodeEncodeError as error:
            raise StoreError(f"{self._name}: cannot be kept: {error.reason}") from error

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        """Run one statement many times, without waiting in between. Raises as `execute`."""
        cursor = self._raw.cursor(binary=True)
        try:
            if rows := list(parameters):
                cursor.executemany(_translated(sql), rows)
        except self._psycopg.Error as error:
            raise self._translated(error) from error
        except UnicodeEncodeError as error:
            raise StoreError(f"{self._name}: cannot be kept: {error.reason}") from error
        return cursor

    def listen(self, channel: str) -> bool:
        """Ask to be told of what happens on `channel`; False where the database cannot."""
        try:
            self._raw.execute(f'LISTEN "{channel}"'.encode())
        except (self._psycopg.NotSupportedError, self._psycopg.ProgrammingError):
            return False
        except self._psycopg.Error as error:
            raise self._translated(error) from error
        return True

    def heard(self) -> list[str]:
        """Return what was told; who asks has waited for `fileno`."""
        try:
            return [one.payload for one in self._raw.notifies(timeout=0)]
        except self._psycopg.Error as error:
            raise self._translated(error) from error

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to hear."""
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()

    def _translated(self, error: "psycopg.Error") -> StoreError:
        text, state = f"{self._name}: {_first_line(error)}", error.sqlstate or ""
        if state in MISSING:
            return TablesMissing(text)
        if state in MADE:
            return AlreadyThere(text)
        is_lost = isinstance(error, self._psycopg.OperationalError | self._psycopg.InterfaceError)
        if state.startswith(PASSING) or (is_lost and not state):
            return Unreachable(text)
        return StoreError(text)


class Connections:
    """Connections to one server; each is used by one thread at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def take(self) -> Connection:
        """Return one that nobody uses. Raises `Unreachable`."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Connection(self._server)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next, if it is good for anything."""
        if connection.is_usable:
            with self._lock:
                if not self._is_closed:
                    self._idle.append(connection)
                    return
        connection.close()
        if not self._is_closed:
            self.forget()  # the others have probably met the same

    def forget(self) -> None:
        """Close those that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close all, those in use as soon as they are given back."""
        self._is_closed = True
        self.forget()


def _psycopg() -> ModuleType:
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError(
            f"metadata: an index in PostgreSQL needs psycopg: pip install '{EXTRA}' ({error})"
        ) from error
    return psycopg


def _connect(server: Server) -> "psycopg.Connection[tuple[Any, ...]]":
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

    options = {**DEFAULTS, **conninfo_to_dict(server.url)}
    if server.password is not None:
        options["password"] = server.password
    raw = psycopg.connect(**options, autocommit=True)  # type: ignore[arg-type]
    for dumper in (Int8Dumper, Int8BinaryDumper):  # else each size of number makes a statement
        raw.adapters.register_dumper(int, dumper)
    raw.execute(f'SET search_path TO "{server.schema}"'.encode())
    raw.execute(b"SET default_transaction_isolation TO 'repeatable read'")
    return raw


@lru_cache(maxsize=256)
def _translated(sql: str) -> bytes:
    return sql.replace("%", "%%").replace("?", "%s").encode()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

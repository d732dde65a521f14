"""The tables of a shared index: those of the file in PostgreSQL's words, and who has it open."""

from backgate.gateway.errors import AlreadyThere, ConfigError, Unreachable
from backgate.gateway.metadata import schema
from backgate.gateway.metadata.postgresql import Connection, Server

ONLY = 1  # the key of tables with one row

_WORDS = (
    ("BLOB", "BYTEA"),
    ("INTEGER", "BIGINT"),
    (") STRICT, WITHOUT ROWID", ")"),
    (") STRICT", ")"),
    ("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"),
    ("CREATE INDEX", "CREATE INDEX IF NOT EXISTS"),
)

# `origin` is the last: where it is, all the others are.
_TABLES = """
CREATE TABLE IF NOT EXISTS gateway (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    has_written BIGINT NOT NULL,
    until TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS turn (
    id BIGINT PRIMARY KEY,
    holder BIGINT NOT NULL,
    until TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS news (
    sequence BIGINT NOT NULL,
    part BIGINT NOT NULL,
    gateway BIGINT NOT NULL,
    is_own BIGINT NOT NULL,
    key BYTEA,
    PRIMARY KEY (sequence, part)
);
INSERT INTO turn (id, holder, until) VALUES (1, 0, now()) ON CONFLICT (id) DO NOTHING;
CREATE TABLE IF NOT EXISTS origin (
    id BIGINT PRIMARY KEY,
    version BIGINT NOT NULL,
    store TEXT NOT NULL
)
"""


def prepare(db: Connection, server: Server, store: str, first: int) -> None:
    """Make what is missing, counting changes from `first` on; check what is there.

    Several gateways may do so at once. Raises `ConfigError` when it is another store's index, or
    another release's; `StoreError`.
    """
    try:
        if not _is_made(db, server.schema):
            _make(db, server)
        db.execute(
            "INSERT INTO origin (id, version, store) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (ONLY, schema.VERSION, store),
        )
    except AlreadyThere as error:
        raise Unreachable(f"{server.name}: is being made by another gateway: {error}") from error
    db.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        query = "SELECT version, store FROM origin WHERE id = ? FOR UPDATE"
        version, owner = db.execute(query, (ONLY,)).fetchone()
        _check(server, (version, owner), (schema.VERSION, store))
        if not db.execute("SELECT 1 FROM state").fetchall():
            schema.fill(db, first)
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _is_made(db: Connection, name: str) -> bool:
    query = "SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_name = ?"
    return db.execute(query, (name, "origin")).fetchone() is not None


def _make(db: Connection, server: Server) -> None:
    query = "SELECT 1 FROM information_schema.schemata WHERE schema_name = ?"
    if db.execute(query, (server.schema,)).fetchone() is None:
        db.execute(f'CREATE SCHEMA IF NOT EXISTS "{server.schema}"')
    tables = schema.TABLES
    for ours, theirs in _WORDS:
        tables = tables.replace(ours, theirs)
    for statement in f"{tables};{_TABLES}".split(";"):
        if statement.strip():
            db.execute(statement)


def _check(server: Server, found: tuple[int, str], wanted: tuple[int, str]) -> None:
    if found[0] != wanted[0]:
        raise ConfigError(
            f"{server.name}: made by a release with index {found[0]}, this one has {wanted[0]}: "
            f"when all gateways have been updated and stopped, drop the schema {server.schema}"
        )
    if found[1] != wanted[1]:
        raise ConfigError(
            f"{server.name}: is the index of {found[1]}, not of {wanted[1]}: "
            'give each repository a schema of its own: metadata = "...?schema=NAME"'
        )

"""A bucket in one SQLite file: rows of objects, and their bytes in rows of a mebibyte at most."""

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import (
    AlreadyThere,
    NotFound,
    Replaced,
    StoreError,
    StoreFull,
    Unreachable,
)
from backgate.gateway.provider import (
    NO_METADATA,
    Abilities,
    Body,
    KeyRules,
    Limits,
    ObjectInfo,
    Page,
    PendingUpload,
    Provider,
)
from backgate.gateway.providers import grouping

CHUNK = 1 << 20  # bytes in a row; SQLite finds a row at once, and a place in a long one slowly
BUSY = 30.0  # seconds that another process may take to write
PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}
SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS objects (
  key TEXT PRIMARY KEY, etag TEXT, size INT, mtime_ns INT, metadata TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (owner TEXT, start INT, data BLOB, PRIMARY KEY (owner, start));
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, key TEXT, begun_ns INT, metadata TEXT);
CREATE TABLE IF NOT EXISTS parts (
  upload TEXT, number INT, etag TEXT, size INT, PRIMARY KEY (upload, number));
"""


class SQLite(Provider):
    """The objects in the file `path`; bytes belong to an etag, so a new version is a new owner."""

    def __init__(self, path: str) -> None:
        self.name = f"sqlite://{path}"
        self.abilities = Abilities(
            etags_are_md5=False,
            limits=Limits(part_min=1, put_max=512 << 20, part_max=512 << 20, object_max=1 << 40),
            keys=KeyRules(refused="\0"),
        )
        self._lock = threading.Lock()  # one connection, used by one thread at a time
        with self._translated():
            self._db = sqlite3.connect(
                path, timeout=BUSY, isolation_level=None, check_same_thread=False
            )
            self._db.executescript(SCHEMA)

    def check(self) -> None:
        with self._transaction():
            self._db.execute("SELECT 1 FROM objects LIMIT 1")

    def head(self, key: str) -> ObjectInfo:
        with self._transaction(key):
            return self._info(key)

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        with self._transaction(key):
            info = self._info(key)
            if etag not in (None, info.etag):
                raise Replaced(f"{self.name}: get {key!r}: another version now", key=key)
            return self._bytes(info.etag, start, min(stop, info.size))

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(key, len(body), metadata, if_absent=if_absent)
        with self._transaction(key, writes=True):
            info = self._new(key, len(body), metadata, if_absent=if_absent)
            self._write(info.etag, memoryview(body).cast("B"))
            return info

    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(target, 0, metadata)
        with self._transaction(source, writes=True):
            old = self._info(source)
            etag = uuid.uuid4().hex
            self._db.execute(
                "INSERT INTO chunks SELECT ?, start, data FROM chunks WHERE owner = ?",
                (etag, old.etag),
            )
            kept = (old.metadata or {}) if metadata is None else metadata
            return self._new(target, old.size, kept, etag=etag)

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        with self._transaction(writes=True):
            for key in keys:
                self._remove(key)
        return {}

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        with self._transaction():
            keys = self._keys(prefix, delimiter, grouping.start_of(after, token))
            cut = grouping.cut(keys, prefix, delimiter, min(limit, 1000), token)
            infos = [self._info(key, with_metadata=False) for key in cut.keys]
            return Page(infos, cut.prefixes, cut.token)

    def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        self.refuse_what_it_cannot_hold(key, 0, metadata)
        upload = uuid.uuid4().hex
        with self._transaction(key, writes=True):
            row = (upload, key, time.time_ns(), _json(metadata))
            self._db.execute("INSERT INTO uploads VALUES (?, ?, ?, ?)", row)
        return upload

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        with self._transaction(key, writes=True):
            self._upload(key, upload)
            etag = self._part(upload, number, len(body))
            self._write(etag, memoryview(body).cast("B"))
            return etag

    def copy_part(
        self,
        key: str,
        upload: str,
        number: int,
        source: str,
        start: int,
        stop: int,
        etag: str | None = None,
    ) -> str:
        with self._transaction(source, writes=True):
            self._upload(key, upload)
            info = self._info(source)
            if etag is not None and info.etag != etag:
                raise Replaced(f"{self.name}: copy_part {source!r}: another version", key=source)
            etag = self._part(upload, number, max(0, min(stop, info.size) - start))
            for at in range(start, min(stop, info.size), CHUNK):
                data = self._bytes(info.etag, at, min(at + CHUNK, stop, info.size))
                self._write(etag, memoryview(data), at - start)
            return etag

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        with self._transaction(key, writes=True):
            metadata = json.loads(self._upload(key, upload))
            known = self._db.execute(
                "SELECT number, etag, size FROM parts WHERE upload = ?", (upload,)
            )
            sizes = {(number, etag): size for number, etag, size in known}
            if not set(parts) <= sizes.keys():
                raise StoreError(f"{self.name}: commit {key!r}: a part is missing", key=key)
            size = sum(sizes[part] for part in parts)
            info, start = self._new(key, size, metadata, if_absent=if_absent), 0
            for part in parts:
                self._db.execute(
                    "UPDATE chunks SET owner = ?, start = start + ? WHERE owner = ?",
                    (info.etag, start, part[1]),
                )
                start += sizes[part]
            self._end(upload)
            return info

    def abort_upload(self, key: str, upload: str) -> None:
        with self._transaction(key, writes=True):
            self._end(upload)

    def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        with self._transaction():
            rows = self._db.execute("SELECT key, id, begun_ns FROM uploads").fetchall()
        return [PendingUpload(*row) for row in rows if row[0].startswith(prefix)]

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _translated(self, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            what, code = f"{self.name}: {error}", getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise StoreFull(what, key=key) from error
            raise (Unreachable if code in PASSING else StoreError)(what, key=key) from error

    @contextmanager
    def _transaction(self, key: str | None = None, *, writes: bool = False) -> Iterator[None]:
        """Let nothing change meanwhile but what is changed inside, all of it or none."""
        with self._lock, self._translated(key):
            self._db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _info(self, key: str, *, with_metadata: bool = True) -> ObjectInfo:
        found = self._db.execute(
            "SELECT size, mtime_ns, etag, metadata FROM objects WHERE key = ?", (_utf8(key),)
        ).fetchone()
        if found is None:
            raise NotFound(f"{self.name}: {key!r}: no such object", key=key)
        size, mtime_ns, etag, metadata = found
        kept = json.loads(metadata) if with_metadata else None
        return ObjectInfo(key, size, mtime_ns, etag, kept)

    def _new(
        self,
        key: str,
        size: int,
        metadata: Mapping[str, str],
        *,
        if_absent: bool = False,
        etag: str | None = None,
    ) -> ObjectInfo:
        """Make `key` an object whose bytes belong to its etag, or will."""
        if if_absent and self._etag(key) is not None:
            raise AlreadyThere(f"{self.name}: put {key!r}: already there", key=key)
        self._remove(key)
        lower = {name.lower(): text for name, text in metadata.items()}
        info = ObjectInfo(key, size, time.time_ns(), etag or uuid.uuid4().hex, lower)
        row = (key, info.etag, size, info.mtime_ns, _json(lower))
        self._db.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?)", row)
        return info

    def _remove(self, key: str) -> None:
        self._db.execute("DELETE FROM chunks WHERE owner = ?", (self._etag(key),))
        self._db.execute("DELETE FROM objects WHERE key = ?", (_utf8(key),))

    def _etag(self, key: str) -> str | None:
        row = self._db.execute("SELECT etag FROM objects WHERE key = ?", (_utf8(key),)).fetchone()
        return None if row is None else str(row[0])

    def _write(self, owner: str, data: memoryview, start: int = 0) -> None:
        for at in range(0, len(data), CHUNK):
            row = (owner, start + at, data[at : at + CHUNK])
            self._db.execute("INSERT INTO chunks VALUES (?, ?, ?)", row)

    def _bytes(self, owner: str, start: int, stop: int) -> bytes:
        rows = self._db.execute(
            "SELECT start, data FROM chunks WHERE owner = ? AND start > ? AND start < ? "
            "ORDER BY start",
            (owner, start - CHUNK, stop),
        )
        return b"".join(data[max(0, start - at) : max(0, stop - at)] for at, data in rows)

    def _keys(self, prefix: str, delimiter: str, after: str) -> Iterator[str]:
        """Yield the keys of a listing, of those that a delimiter makes one the first."""
        query = "SELECT key FROM objects WHERE key > ? AND key >= ? ORDER BY key LIMIT 1"
        while row := self._db.execute(query, (_utf8(after), _utf8(prefix))).fetchone():
            key = str(row[0])
            if not key.startswith(prefix):
                return
            yield key
            stop = key.find(delimiter, len(prefix)) if delimiter else -1
            after = max(key, key[: stop + 1] + grouping.LAST) if stop >= 0 else key

    def _upload(self, key: str, upload: str) -> str:
        row = self._db.execute("SELECT metadata FROM uploads WHERE id = ?", (upload,)).fetchone()
        if row is None:
            raise NotFound(f"{self.name}: {key!r}: no such upload", key=key)
        return str(row[0])

    def _part(self, upload: str, number: int, size: int) -> str:
        """Make part `number`, in place of an earlier one, and return whom its bytes belong to."""
        etag = uuid.uuid4().hex
        self._db.execute(
            "DELETE FROM chunks WHERE owner IN "
            "(SELECT etag FROM parts WHERE upload = ? AND number = ?)",
            (upload, number),
        )
        row = (upload, number, etag, size)
        self._db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)", row)
        return etag

    def _end(self, upload: str) -> None:
        self._db.execute(
            "DELETE FROM chunks WHERE owner IN (SELECT etag FROM parts WHERE upload = ?)", (upload,)
        )
        self._db.execute("DELETE FROM parts WHERE upload = ?", (upload,))
        self._db.execute("DELETE FROM uploads WHERE id = ?", (upload,))


def _json(metadata: Mapping[str, str]) -> str:
    return json.dumps(dict(metadata))


def _utf8(key: str) -> str:
    """Return `key`, or what no object is called where it is not UTF-8."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return "\0"
    return key


def open_url(config: RepositoryConfig, credentials: object) -> tuple[Provider, str]:
    """Return the file that `sqlite:///path` names; Backgate calls this for the entry point."""
    return SQLite(config.url.removeprefix("sqlite://")), ""

"""Makes the member index of an archive, in one pass."""

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import trio

from backgate.fs.formats.compression.codec import HEAD, codec_of
from backgate.fs.formats.compression.firstpass import FirstPass, require_room
from backgate.fs.formats.compression.packed import LONGEST_READ, PackedFile
from backgate.fs.formats.indexes import Subject
from backgate.fs.formats.tar import schema
from backgate.fs.formats.tar.archive import Forward, PlainArchive
from backgate.fs.formats.tar.extraction import Extraction
from backgate.fs.formats.tar.members import members

PROGRESS_EVERY = 10.0  # seconds between two lines in the log
MEMBERS_PER_LOOK = 256  # members between two looks at the clock

log = logging.getLogger(__name__)


def build(subject: Subject, path: Path) -> None:
    """Write the index into the empty file at `path`; see `Indexes.open` for what it raises."""
    with closing(schema.create(path)) as database:
        _Build(subject).run(database)


class _Build:
    """One pass over one archive, in a worker thread."""

    def __init__(self, subject: Subject) -> None:
        self._info, self._folder = subject.info, subject.folder
        self._random, self._sequential = subject.random, subject.sequential
        self._noted = time.monotonic()

    def run(self, database: sqlite3.Connection) -> None:
        """Write the whole index; see `Indexes.open` for what it raises."""
        log.info("indexing %r, %d bytes", self._info.key, self._info.size)
        begun = self._noted = time.monotonic()
        archive = self._archive(database)
        extraction = Extraction(database, archive.where, self._info.mtime_ns)
        for member in members(archive):
            extraction.add(member)
            self._note(extraction, member.at)
        archive.finish()
        facts = {"members": extraction.members, "left_out": extraction.left_out}
        database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        database.execute("COMMIT")
        took = time.monotonic() - begun
        log.info("indexed %r: %d members in %.1f s", self._info.key, extraction.members, took)
        if extraction.left_out:
            log.warning(
                "%r: %d of its members cannot be shown", self._info.key, extraction.left_out
            )

    def _archive(self, database: sqlite3.Connection) -> Forward:
        key = self._info.key
        codec = codec_of(bytes(trio.from_thread.run(self._random.read_at, 0, HEAD)))
        if codec is None:
            return PlainArchive(key, self._random, self._sequential)
        file = PackedFile(key, self._sequential, first_read=LONGEST_READ)
        return FirstPass(file, codec, database)

    def _note(self, extraction: Extraction, at: int) -> None:
        if extraction.members % MEMBERS_PER_LOOK:
            return
        trio.from_thread.check_cancelled()
        require_room(self._folder)
        now = time.monotonic()
        if now - self._noted >= PROGRESS_EVERY:
            self._noted = now
            log.info("indexing %r: %d members, at byte %d", self._info.key, extraction.members, at)

"""What is known of archives without opening them, kept across runs: whole, or why not.

A plain tar tells by its last kilobyte; of a compressed one the listing sees only how it begins and,
for xz, how it ends. The whole truth comes with the first opening, and is remembered here.
"""

import logging
import sqlite3
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path

from backgate.fs.formats.compression.codec import codec_of
from backgate.fs.formats.indexes import identity
from backgate.fs.formats.tar import header, schema
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source

PATIENCE = 5.0  # seconds to wait for another process that writes a verdict
END = 2 * header.BLOCK  # bytes of zeros that end an archive
XZ_FOOTER = b"YZ"
XZ_EDGES = 32  # bytes of the shortest xz file

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one version of one archive."""

    kind: str = "tar"  # its compression, or "tar"
    reason: str = ""  # why it cannot be shown; "" where it can, as far as is known
    left_out: str = ""  # members that cannot be shown though the rest can

    @property
    def notes(self) -> dict[str, str]:
        """What a listing says besides."""
        return {"left_out": self.left_out} if self.left_out else {}


async def judge(info: ObjectInfo, source: Source) -> Verdict:
    """Return what a look at the archive's beginning and end tells, in at most two small reads."""
    if not info.size:
        return Verdict(reason="empty: it was never written")
    head = bytes(await source.read_at(0, header.BLOCK))
    codec = codec_of(head)
    if codec is None:
        return Verdict(reason=await _fault_of_plain(info, source, head))
    if codec.name == "xz":
        return Verdict(codec.name, await _fault_of_xz(info, source))
    return Verdict(codec.name)


class Verdicts:
    """The verdicts of one repository, by version of an archive."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Verdict] | None = None
        self.generation = 0  # grows with what is known

    def known(self, info: ObjectInfo) -> Verdict | None:
        """Return what is remembered of this version."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(identity(info))

    def remember(self, found: dict[str, Verdict]) -> None:
        """Keep verdicts by `identity`; without the disk's help where that fails."""
        if self._known is None:
            self._known = self._read()
        self._known |= found
        self.generation += 1
        rows = [(name, *astuple(verdict)) for name, verdict in found.items()]
        try:
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            log.debug("verdicts on archives are not kept: %s", error)

    def _read(self) -> dict[str, Verdict]:
        try:
            with closing(self._open()) as database:
                rows = database.execute("SELECT * FROM verdicts").fetchall()
        except (sqlite3.Error, OSError) as error:
            log.debug("verdicts on archives cannot be read: %s", error)
            return {}
        return {name: Verdict(*verdict) for name, *verdict in rows}

    def _open(self) -> sqlite3.Connection:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"verdicts-{schema.VERSION}"
        database = sqlite3.connect(path, timeout=PATIENCE)
        database.execute(
            "CREATE TABLE IF NOT EXISTS verdicts "
            "(version TEXT PRIMARY KEY, kind TEXT NOT NULL, reason TEXT NOT NULL, "
            "left_out TEXT NOT NULL) WITHOUT ROWID"
        )
        return database


async def _fault_of_plain(info: ObjectInfo, source: Source, head: bytes) -> str:
    if head != header.ZERO_BLOCK and not header.is_checked(head.ljust(header.BLOCK, b"\0")):
        return "not a tar archive, and not compressed in a way that is known"
    if info.size % header.BLOCK or info.size < END:
        return f"truncated: {info.size} bytes are not a whole number of tar blocks"
    if any(await source.read_at(info.size - END, END)):
        return "truncated, or still being written: it ends without the end of an archive"
    return ""


async def _fault_of_xz(info: ObjectInfo, source: Source) -> str:
    tail = bytes(await source.read_at(max(0, info.size - XZ_EDGES), XZ_EDGES))
    if not any(tail) or tail.rstrip(b"\0").endswith(XZ_FOOTER):
        return ""
    return "truncated, or still being written: it ends without the end of an xz stream"

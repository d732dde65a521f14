"""What the log says of file systems on the disks of a backup, when they are looked into."""

import logging

from cachetools import LRUCache

from backgate.fs.disk_entries import Inside
from backgate.fs.disk_layout import Place
from backgate.fs.parser.messages import Notes, VolumeFacts
from backgate.fs.volume import DOUBT
from backgate.fs.volumes.replay import DAMAGE, JOURNAL, STATE, leaves_doubt

TOLD_MAX = 1000  # extended attributes remembered of which the log has said that they are too long

log = logging.getLogger(__name__)


class Remarks:
    """Says each of them once; `where` names the backup."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._told: LRUCache[tuple[bytes, bytes], bool] = LRUCache(TOLD_MAX)

    def opened(self, place: Place, facts: VolumeFacts, notes: Notes) -> None:
        """Log what became of the journal of a file system that is opened for the first time.

        What leaves a doubt of the files is a warning, and so is a doubt of the volume, and damage.
        """
        where, journal = f"{self._where}: {shown_place(place)}", notes.get(JOURNAL)
        if journal is not None:
            level = logging.WARNING if leaves_doubt(journal) else logging.INFO
            state = notes.get(STATE, "")
            log.log(level, "%s: %s, %s; journal: %s", where, facts.file_system, state, journal)
        for doubt in (facts.notes.get(DOUBT), notes.get(DAMAGE)):
            if doubt:
                log.warning("%s: %s", where, doubt)

    def too_long(self, inside: Inside, name: bytes) -> None:
        """Log that an extended attribute, or its name, is too long to be asked for."""
        key = (inside.node.handle, name)
        if key not in self._told:
            self._told[key] = True
            log.warning(
                "%s: %s: %r: the extended attribute %r is longer than Linux gives to anybody",
                self._where,
                shown_place(inside.place),
                inside.node.name,
                name,
            )


def shown_place(place: Place) -> str:
    """Return a place as a path for people."""
    return b"/".join(place).decode("utf-8", "replace")

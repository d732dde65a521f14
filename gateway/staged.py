"""Temporary names: files that a tool writes under one name to publish them under another.

A file with such a name stays local when it is closed; the rename stores it, once, under its final
name. What was taken for temporary and is not loses nothing: it is stored under its own name when
nobody has renamed it for a while.
"""

import re
from collections.abc import Iterable
from fnmatch import translate

# Where each comes from: the tools' system calls, traced, and for kopia its source.
RANDOM = (  # no two programs choose the same, so none is a lock
    "*-tmp-[0-9]*",  # restic
    "*.tmp.[0-9a-f]*",  # kopia
    ".?*." + 6 * "[A-Za-z0-9]",  # rsync: mkstemp(".NAME.XXXXXX")
    "tmp_[a-z]*_" + 6 * "[A-Za-z0-9]",  # git: objects, and packs with what belongs to them
    ".tmp-[0-9]*-pack-*",  # git repack
)
KNOWN = (
    *RANDOM,
    "*.tmp",  # borg, borgstore, and many others
    "*.partial",  # rclone
    "*.part",  # curl, aria2, browsers
    "*.lock",  # git, bup
    "*.db-journal",  # SQLite: deleted when its transaction is committed, never renamed
    "*.sqlite-journal",
    "*.sqlite3-journal",
    ".~tmp~/*",  # rsync --delay-updates
)


_random = re.compile("|".join(translate(pattern) for pattern in RANDOM))


def is_random(key: str) -> bool:
    """True for a temporary name that a tool has made up."""
    return _random.match(key.rpartition("/")[2]) is not None


class StagedNames:
    """The patterns of temporary names: the known ones and an administrator's.

    A pattern without a slash is compared with the last component of a name, one with a slash with
    as many components as it has.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        patterns = (*KNOWN, *more)
        last = [translate(pattern) for pattern in patterns if "/" not in pattern]
        self._names = re.compile("|".join(last))
        self._paths = [
            [re.compile(translate(component)) for component in reversed(pattern.split("/"))]
            for pattern in patterns
            if "/" in pattern
        ]

    def matches(self, key: str) -> bool:
        """True when `key` is one of those names."""
        components = key.split("/")[::-1]
        return self._names.match(components[0]) is not None or any(
            len(path) <= len(components)
            and all(one.match(name) for one, name in zip(path, components, strict=False))
            for path in self._paths
        )

"""Temporary names: files that a tool writes under one name to publish them under another.

A file with such a name stays local when it is closed; the rename stores it, once, under its final
name. What was taken for temporary and is not loses nothing: it is stored under its own name when
nobody has renamed it for a while.
"""

import re
from collections.abc import Iterable
from fnmatch import translate

# Where each comes from: the tools' system calls, traced, and for kopia its source.
KNOWN = (
    "*-tmp-[0-9]*",  # restic
    "*.tmp",  # borg, borgstore, and many others
    "*.tmp.[0-9a-f]*",  # kopia
    "*.partial",  # rclone
    "*.part",  # curl, aria2, browsers
    "*.lock",  # git, bup
    ".?*." + 6 * "[A-Za-z0-9]",  # rsync: mkstemp(".NAME.XXXXXX")
    ".~tmp~/*",  # rsync --delay-updates
)


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

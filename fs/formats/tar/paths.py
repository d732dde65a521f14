"""Where archives appear below `backups/tar/`: their keys without the suffix."""

from collections.abc import Iterable, Mapping

from backgate.fs.formats import key_paths

SUFFIXES = (
    ".tar",
    *(".tar.gz", ".tgz"),
    *(".tar.bz2", ".tbz2", ".tbz"),
    *(".tar.xz", ".txz"),
    *(".tar.zst", ".tzst"),
)


def is_archive(key: str) -> bool:
    """True when `key` has the suffix of an archive, in capitals or not."""
    return key.lower().endswith(SUFFIXES)


def paths(keys: Iterable[str]) -> Mapping[str, key_paths.Path]:
    """Return a path for each key; see `key_paths`."""
    return key_paths.paths(keys, SUFFIXES)

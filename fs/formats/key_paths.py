"""Where backups that are one object appear: their keys without the suffix."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

NAME_MAX = 255  # bytes in one component, the kernel's limit
HASH_DIGITS = 8  # hex digits that stand for what a component cannot hold

Path = tuple[str, ...]


def paths(keys: Iterable[str], suffixes: Sequence[str]) -> Mapping[str, Path]:
    """Return a path for each key: without its suffix, unless another needs that name too.

    A name is needed when it is another's path, or the beginning of one. Then all of them keep their
    suffix; and where a key still stands in the way of others, it gets a hash behind it.
    """
    keys = sorted(keys)
    whole = {key: _safe(key) for key in keys}
    longest = sorted(suffixes, key=len, reverse=True)
    short = {key: (*path[:-1], _without(longest, path[-1])) for key, path in whole.items()}
    free = _free(short.values())
    first = {key: short[key] if short[key] in free else whole[key] for key in keys}
    free = _free(first.values())
    return {
        key: path if path in free else (*path[:-1], _hashed(path[-1], key))
        for key, path in first.items()
    }


def _free(paths: Iterable[Path]) -> set[Path]:
    """Return the paths that no other needs: as its own, or as its beginning."""
    ordered = sorted(paths)  # a path stands right before those that it is the beginning of
    before: Sequence[Path] = [(), *ordered]
    behind: Sequence[Path] = [*ordered[1:], ()]
    return {
        path
        for above, path, below in zip(before, ordered, behind, strict=False)
        if path != above and path != below[: len(path)]
    }


def _without(suffixes: Sequence[str], name: str) -> str:
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)] or name
    return name  # it was too long, and has lost its end


def _safe(key: str) -> Path:
    return tuple(_safe_name(name, key) for name in key.split("/"))


def _safe_name(name: str, key: str) -> str:
    """Return a component that a path may have; most are as they are."""
    clean = name.replace("\0", "_")
    if clean in ("", ".", ".."):
        clean = f"_{clean}"
    if len(os.fsencode(clean)) > NAME_MAX - HASH_DIGITS - 1:
        encoded = os.fsencode(clean)[: NAME_MAX - HASH_DIGITS - 16]
        clean = _hashed(encoded.decode("utf-8", "ignore"), name)
    return clean if clean == name else _hashed(clean, key)


def _hashed(name: str, text: str) -> str:
    digits = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]
    return f"{name}~{digits}"

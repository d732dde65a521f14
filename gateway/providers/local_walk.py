"""The keys of a local store in byte order, from any key on, one directory in memory at a time."""

import heapq
import os
import stat
from bisect import bisect_left
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from operator import itemgetter

from backgate.gateway.providers.local_directories import Directories
from backgate.gateway.providers.local_names import (
    MORE,
    ODD,
    PRIVATE,
    escaped,
    odd_key,
    plain_parts,
)
from backgate.gateway.providers.local_paths import ABSENT, descend

PRIVATE_NAME = PRIVATE.decode() + "/"  # at the top; what is ours and no key

Found = tuple[str, os.stat_result]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which keys a walk gives."""

    prefix: str
    after: str  # only those behind it
    key_max: int  # bytes
    is_shallow: bool  # only the first key of each directory below `prefix` need be given


def walk(top: int, directories: Directories, wanted: Wanted) -> Generator[Found, None, None]:
    """Give the keys that are `wanted`, each with its file's status, in byte order."""
    last = None
    plain = _plain(top, directories, wanted)
    odd = _odd(top, wanted.prefix, wanted.after)
    for found in heapq.merge(plain, odd, key=itemgetter(0)):
        if found[0] != last:  # a key that moved between our two looks
            yield found
        last = found[0]


def _plain(top: int, directories: Directories, wanted: Wanted) -> Iterator[Found]:
    base, slash, _ = wanted.prefix.rpartition("/")
    parts = plain_parts(base) if slash else ()
    if parts is None:
        return
    try:
        folder = descend(top, parts)
    except ABSENT:
        return
    try:
        yield from _below(folder, base + slash, directories, wanted, is_first=wanted.is_shallow)
    finally:
        os.close(folder)


def _below(
    folder: int, base: str, directories: Directories, wanted: Wanted, *, is_first: bool
) -> Iterator[Found]:
    """Give what is wanted below `base`; when `is_first`, of each directory in it the first key."""
    names = directories.names(folder)
    for number in range(_start(names, base, wanted), len(names)):
        name = names[number]
        key = base + name
        if not key.startswith(wanted.prefix):
            if key > wanted.prefix and not wanted.prefix.startswith(key):
                return  # all that follows is behind the prefix, too
            continue
        if len(key.encode()) > wanted.key_max or _is_done(key, wanted.after):
            continue
        if not name.endswith("/"):
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield key, status
        elif base or name != PRIVATE_NAME:
            yield from _inside(folder, key, directories, wanted, only_first=is_first)


def _inside(
    folder: int, key: str, directories: Directories, wanted: Wanted, *, only_first: bool
) -> Iterator[Found]:
    name = key[:-1].rpartition("/")[2]
    try:
        inner = descend(folder, (os.fsencode(name),))
    except ABSENT:
        return
    try:
        for found in _below(inner, key, directories, wanted, is_first=False):
            yield found
            if only_first:
                break
    finally:
        os.close(inner)


def _start(names: list[str], base: str, wanted: Wanted) -> int:
    """Return where in `names` to begin; what lies before is surely not wanted.

    The name before the first that sorts behind a key may be the directory that the key is in.
    """
    start = 0
    for text in (wanted.after, wanted.prefix):
        if text.startswith(base):
            start = max(start, bisect_left(names, text[len(base) :]) - 1)
    return start


def _is_done(key: str, after: str) -> bool:
    """True when `key`, or all below it if it is a directory, lies at or before `after`."""
    if key.endswith("/"):
        return key < after and not after.startswith(key)
    return key <= after


def _odd(top: int, prefix: str, after: str) -> list[Found]:
    try:
        folder = descend(top, ODD)
    except ABSENT:
        return []
    try:
        return sorted(_odd_below(folder, (), escaped(prefix), after), key=itemgetter(0))
    finally:
        os.close(folder)


def _odd_below(
    folder: int, pieces: tuple[bytes, ...], wanted: bytes, after: str
) -> Iterator[Found]:
    """Give what lies behind `after` and begins, escaped, with `wanted`, in any order."""
    for name in map(os.fsencode, os.listdir(folder)):
        path = (*pieces, name)
        text = b"".join(piece[1:] for piece in path)
        if not (text.startswith(wanted) or (name.startswith(MORE) and wanted.startswith(text))):
            continue
        try:
            if name.startswith(MORE):
                inner = descend(folder, (name,))
                try:
                    yield from _odd_below(inner, path, wanted, after)
                finally:
                    os.close(inner)
            elif (key := odd_key(path)) is not None and key > after:
                yield key, os.stat(name, dir_fd=folder, follow_symlinks=False)
        except ABSENT:
            continue

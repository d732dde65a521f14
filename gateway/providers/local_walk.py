"""The keys of a local store in byte order, from any key on, one directory in memory at a time."""

import heapq
import os
from collections.abc import Generator, Iterator
from operator import itemgetter

from backgate.gateway.providers.local_names import (
    MORE,
    ODD,
    PRIVATE,
    escaped,
    odd_key,
    plain_parts,
)
from backgate.gateway.providers.local_paths import ABSENT, descend

Found = tuple[str, os.stat_result]


def walk(
    top: int, prefix: str, after: str, key_max: int, *, is_shallow: bool
) -> Generator[Found, None, None]:
    """Give keys with `prefix` behind `after`, each with its file's status, in byte order.

    When `is_shallow`, only the first key of each directory below `prefix` need be given.
    """
    last = None
    plain = _plain(top, prefix, after, key_max, is_shallow=is_shallow)
    odd = _odd(top, prefix, after)
    for found in heapq.merge(plain, odd, key=itemgetter(0)):
        if found[0] != last:  # a key that moved between our two looks
            yield found
        last = found[0]


def _plain(top: int, prefix: str, after: str, key_max: int, *, is_shallow: bool) -> Iterator[Found]:
    base, slash, _ = prefix.rpartition("/")
    parts = plain_parts(base) if slash else ()
    if parts is None:
        return
    try:
        folder = descend(top, parts)
    except ABSENT:
        return
    try:
        yield from _below(folder, base + slash, prefix, after, key_max, is_shallow=is_shallow)
    finally:
        os.close(folder)


def _below(
    folder: int, base: str, prefix: str, after: str, key_max: int, *, is_shallow: bool
) -> Iterator[Found]:
    for name, entry in _entries(folder, base):
        key = base + name
        if len(key.encode()) > key_max or not key.startswith(prefix) or _is_done(key, after):
            continue
        if not name.endswith("/"):
            try:
                yield key, entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            continue
        try:
            inner = descend(folder, (os.fsencode(entry.name),))
        except ABSENT:
            continue
        try:
            for found in _below(inner, key, prefix, after, key_max, is_shallow=False):
                yield found
                if is_shallow:
                    break
        finally:
            os.close(inner)


def _entries(folder: int, base: str) -> list[tuple[str, os.DirEntry[str]]]:
    """What a directory holds, in byte order of keys: a directory's name counts with its slash."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                continue  # no key is called so; we never made it
            if entry.is_dir(follow_symlinks=False):
                if base or os.fsencode(entry.name) != PRIVATE:
                    found.append((entry.name + "/", entry))
            elif entry.is_file(follow_symlinks=False):
                found.append((entry.name, entry))
    found.sort(key=itemgetter(0))
    return found


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

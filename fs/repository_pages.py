"""Pages of a repository's directory: what the index has, the spool's files in their places."""

from collections.abc import Mapping, Sequence

import msgspec

from backgate.gateway.keys import name_of
from backgate.gateway.metadata.rows import Known, Subdirectory
from backgate.gateway.records import HIDDEN
from backgate.gateway.spooled import SpooledFile

Found = Known | Subdirectory | SpooledFile


def cursor_of(last: str, place: str | None) -> bytes | None:
    """Return the cursor behind a page: its last key, and where the index goes on, if it does."""
    return None if place is None else msgspec.json.encode((last, place))


def place_of(cursor: bytes | None) -> tuple[str, str | None]:
    """Return the last key of the page before, and where the index goes on."""
    return msgspec.json.decode(cursor, type=tuple[str, str]) if cursor else ("", None)


def key_in(found: Found) -> str:
    """Return the key of a file, the prefix of a directory."""
    if isinstance(found, Known):
        return found.info.key
    return found.prefix if isinstance(found, Subdirectory) else found.key or ""


def is_hidden(found: Found) -> bool:
    """True for the directory that is the gateway's own."""
    return isinstance(found, Subdirectory) and found.prefix == HIDDEN


def merged(
    page: Sequence[tuple[str, Found]],
    prefix: str,
    spooled: Mapping[str, SpooledFile],
    span: tuple[str, str | None],
) -> list[tuple[str, Found]]:
    """Return a page with what the spool has of its keys, behind the first of `span` and up to the
    second, in their place.
    """
    named = {key_in(found): (name, found) for name, found in page}
    after, last = span
    for key, file in spooled.items():
        if after < key and (last is None or key <= last):
            name = named[key][0] if key in named else name_of(key[len(prefix) :])
            named[key] = name, file
    return [named[key] for key in sorted(named)]

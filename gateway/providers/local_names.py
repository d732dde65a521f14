"""Where a key's object lies below the root of a local store.

A plain key is a plain file, so that backup tools can read the directory natively. Any other key
(`..`, an empty or overlong component, a directory marker `name/`, a name that a directory or a file
of the same name already takes) is kept faithfully under an escaped name below `.backgate/odd`:
percent-encoded, in pieces that a file system takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

PRIVATE = b".backgate"  # directory at the root that is ours
ODD = (PRIVATE, b"odd")
COMPONENT_MAX = 255  # bytes; of every file system in use
PIECE = 200  # bytes of an escaped key per component

MORE, END = b"+", b"="  # what pieces begin with: none is both a directory and a file


@dataclass(frozen=True, slots=True)
class Place:
    """A file: the directories below the root that lead to it, and its name."""

    directory: tuple[bytes, ...]
    name: bytes


def plain_parts(path: str) -> tuple[bytes, ...] | None:
    """Return the components of a path that a file system can hold as it is; else None."""
    parts = tuple(path.encode("utf-8", "surrogatepass").split(b"/"))
    if parts[0] == PRIVATE or any(not _is_plain(part) for part in parts):
        return None
    return parts


def plain_place(key: str) -> Place | None:
    """Return where `key` lies as a plain file; None when it cannot."""
    parts = plain_parts(key)
    return None if parts is None else Place(parts[:-1], parts[-1])


def odd_place(key: str) -> Place:
    """Return where `key` lies when it cannot be a plain file."""
    text = escaped(key)
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)] or [b""]
    folders = tuple(MORE + piece for piece in pieces[:-1])
    return Place(ODD + folders, END + pieces[-1])


def escaped(text: str) -> bytes:
    """Return `text` as names below `.backgate/odd` spell it; of a prefix it is the prefix."""
    return quote(text, safe="", errors="surrogatepass").encode()


def odd_key(pieces: Sequence[bytes]) -> str | None:
    """Return the key of a file below `.backgate/odd`, found at `pieces`; None if it is not ours."""
    text = b"".join(piece[1:] for piece in pieces)
    key = unquote(text.decode("ascii", "replace"), errors="replace")
    place = odd_place(key)
    return key if (*place.directory[len(ODD) :], place.name) == tuple(pieces) else None


def _is_plain(part: bytes) -> bool:
    return part not in (b"", b".", b"..") and len(part) <= COMPONENT_MAX and b"\0" not in part

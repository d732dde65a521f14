"""Make one page of a listing out of keys in order, for providers that list for themselves."""

from collections.abc import Iterator
from dataclasses import dataclass

LAST = "\U0010ffff"  # no character sorts behind it


@dataclass(frozen=True, slots=True)
class Cut:
    """Keys and common prefixes of one page, and the token for the next (None: there is none)."""

    keys: list[str]
    prefixes: list[str]
    token: str | None


def start_of(after: str, token: str | None) -> str:
    """Return the text behind which a page begins; all keys below a token's prefix are before it."""
    if token is None:
        return after
    return token[1:] + LAST if token[0] == "p" else token[1:]


def cut(keys: Iterator[str], prefix: str, delimiter: str, limit: int, token: str | None) -> Cut:
    """Return the first `limit` names that `keys` give: keys, and prefixes up to a delimiter.

    Keys with one prefix must follow one another; all but the first of them may be left out.
    """
    found = Cut([], [], None)
    last = token or ""  # the item before: "k" or "p", and its text
    for key in keys:
        stop = key.find(delimiter, len(prefix)) if delimiter else -1
        item = "k" + key if stop < 0 else "p" + key[: stop + len(delimiter)]
        if item == last:
            continue
        if len(found.keys) + len(found.prefixes) == limit:
            return Cut(found.keys, found.prefixes, last)
        (found.keys if stop < 0 else found.prefixes).append(item[1:])
        last = item
    return found

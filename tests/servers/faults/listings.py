"""Listings that are made here, out of what the real server holds, with a provider's weaknesses.

The server behind the proxy lists in one order, whole, at once. A provider that is to be emulated
may do neither.
"""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote_plus, unquote_plus
from xml.sax.saxutils import escape

from servers.faults.rule import Asked

NOTHING = "\x00"  # begins the token behind an empty page; where that one began follows


@dataclass(frozen=True, slots=True)
class Item:
    """An object as a listing tells of it."""

    key: str
    size: str
    etag: str
    modified: str


@dataclass(slots=True, kw_only=True)
class Listings:
    """How an emulated store lists."""

    order: Literal["bytes", "directories", "scattered"] = "bytes"  # directories: `a/` as `a`
    page_max: int = 1000  # keys
    empty_every: int = 0  # each n-th page is empty and not the last; 0: none
    ignores_start_after: bool = False
    slow_above: int | None = None  # keys below the prefix; a page of more takes `seconds`
    scans_above: int | None = None  # the same, of listings by delimiter alone
    seconds: float = math.inf  # inf: no answer, until the client goes
    lag: float = 0.0  # seconds for which a listing does not show what has changed
    _pages: int = 0
    _views: dict[str, "_View"] = field(default_factory=dict)  # prefix -> what is shown of it

    def wait(self, asked: Asked, held: int) -> float:
        """Return the seconds that an answer takes, out of `held` keys below the prefix."""
        is_scan = self.scans_above is not None and held > self.scans_above
        is_long = self.slow_above is not None and held > self.slow_above
        return self.seconds if is_long or (is_scan and "delimiter" in asked.query) else 0.0

    def answer(self, asked: Asked, held: Sequence[Item]) -> bytes:
        """Return the XML of one page of `held`, all that the server has below the prefix."""
        query = asked.query
        if self.lag:
            view = self._views.setdefault(query.get("prefix", ""), _View())
            held = view.shown(held, self.lag)
        after, token = self._start(query)
        self._pages += 1
        if self.empty_every and self._pages % self.empty_every == 0 and held:
            again = f"{NOTHING}a{after}" if token is None else f"{NOTHING}t{token}"
            return _document(query, (), again)
        names = self._names(query, held, after, token)
        limit = min(asked.limit, self.page_max)
        page = names[:limit]
        return _document(query, page, page[-1][0] if len(names) > limit else None)

    def _start(self, query: Mapping[str, str]) -> tuple[str, str | None]:
        """Where the page begins: behind a key, or behind the last name of the page before."""
        token = unquote_plus(query.get("continuation-token", "")) or query.get("marker", "")
        if token.startswith(NOTHING):
            return (token[2:], None) if token[1] == "a" else ("", token[2:])
        if token:
            return "", token
        return "" if self.ignores_start_after else query.get("start-after", ""), None

    def _names(
        self, query: Mapping[str, str], held: Sequence[Item], after: str, token: str | None
    ) -> list[tuple[str, Item | None]]:
        """Keys and common prefixes behind the start, in order; a prefix has no item."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names: dict[str, Item | None] = {}
        for item in held:
            if item.key.encode() <= after.encode():
                continue
            stop = item.key.find(delimiter, len(prefix)) if delimiter else -1
            if stop < 0:
                names[item.key] = item
            else:
                names[item.key[: stop + len(delimiter)]] = None
        last = None if token is None else self._rank(token)
        ranked = sorted((self._rank(name), name) for name in names)
        return [(name, names[name]) for rank, name in ranked if last is None or rank > last]

    def _rank(self, name: str) -> Any:
        if self.order == "directories":
            return name.split("/")
        if self.order == "scattered":
            return hashlib.md5(name.encode(), usedforsecurity=False).digest(), name.encode()
        return name.encode()


@dataclass(slots=True)
class _View:
    """What listings of one prefix show, which is not what there is."""

    items: dict[str, Item] | None = None  # None: nobody has asked yet
    noticed: dict[str, float] = field(default_factory=dict)  # key -> when it first was different

    def shown(self, held: Sequence[Item], lag: float) -> list[Item]:
        there, now = {item.key: item for item in held}, time.monotonic()
        if self.items is None:
            self.items = there
        for key in there.keys() | self.items.keys():
            if there.get(key) == self.items.get(key):
                self.noticed.pop(key, None)
            elif now - self.noticed.setdefault(key, now) >= lag:
                self.items.pop(key, None)
                self.items |= {key: there[key]} if key in there else {}
        return list(self.items.values())


def _document(
    query: Mapping[str, str], page: Sequence[tuple[str, Item | None]], last: str | None
) -> bytes:
    def text(key: str) -> str:
        return quote_plus(key) if query.get("encoding-type") == "url" else escape(key)

    parts = [f"<IsTruncated>{'false' if last is None else 'true'}</IsTruncated>"]
    if "encoding-type" in query:
        parts.append("<EncodingType>url</EncodingType>")
    if last is not None:
        is_second = query.get("list-type") == "2"
        name = "NextContinuationToken" if is_second else "NextMarker"
        parts.append(f"<{name}>{text(last) if not is_second else quote_plus(last)}</{name}>")
    for name, item in page:
        if item is None:
            parts.append(f"<CommonPrefixes><Prefix>{text(name)}</Prefix></CommonPrefixes>")
        else:
            parts.append(
                f"<Contents><Key>{text(name)}</Key><LastModified>{item.modified}</LastModified>"
                f"<ETag>{escape(item.etag)}</ETag><Size>{item.size}</Size></Contents>"
            )
    return f"<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode()

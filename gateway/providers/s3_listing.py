"""Listings of S3 in both versions: what to ask for a page, and what its XML says.

Version 1 goes on behind a key, version 2 with a token. Stores that know no `start-after` are asked
in version 1 from the first page on, so that an interval of keys can be asked for everywhere.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

from backgate.gateway.profiles import Profile
from backgate.gateway.provider import ObjectInfo, Page
from backgate.gateway.units import SECOND_NS

SIZE = re.compile(r"[0-9]{1,18}", re.ASCII)  # less than 2 to the power of 63
WEAK = "W/"  # before an etag that names a version but holds no condition (RFC 9110, 8.8.1)

_ECHO = re.compile(rb"<(Prefix|Marker|StartAfter)>[^<]*</\1>")
_TIME_MAX_NS = 1 << 63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND_NS = 1000


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a store wants to be asked for listings."""

    uses_markers: bool  # version 1
    is_encoded: bool  # keys can come percent-encoded

    @classmethod
    def of(cls, profile: Profile) -> "Dialect":
        uses_markers = profile.list_version == 1 or not profile.list_start_after
        return cls(uses_markers, profile.list_url_encode)

    def query(self, prefix: str, delimiter: str, after: str, token: str | None, limit: int) -> str:
        """Return the query of the page behind `after`, or the one that `token` stands for."""
        asked = {"max-keys": str(limit)}
        asked |= {"encoding-type": "url"} if self.is_encoded else {}
        asked |= {"prefix": prefix} if prefix else {}
        asked |= {"delimiter": delimiter} if delimiter else {}
        if self.uses_markers:
            asked |= {"marker": token or after} if token or after else {}
        else:
            asked |= {"list-type": "2"}
            asked |= {"start-after": after} if after and token is None else {}
            asked |= {"continuation-token": token} if token is not None else {}
        pairs = ((quote(name, safe="-_.~"), quote(asked[name], safe="-_.~")) for name in asked)
        return "&".join("=".join(pair) for pair in sorted(pairs))

    def page(self, body: bytes) -> Page:
        """Return what the answer `body` says; `ValueError` when it is no whole listing."""
        try:
            root = ElementTree.fromstring(_without_echo(body) if self.is_encoded else body)
        except ElementTree.ParseError as error:
            raise ValueError(str(error)) from error
        space = root.tag[: root.tag.index("}") + 1] if root.tag.startswith("{") else ""
        if root.tag != f"{space}ListBucketResult":
            raise ValueError(f"a {root.tag[len(space) :][:80]} instead of a listing")
        objects = _objects(root, space)
        prefixes = _prefixes(root, space)
        if root.findtext(f"{space}IsTruncated") != "true":
            return Page(objects, prefixes, None)
        if not self.uses_markers:
            token = root.findtext(f"{space}NextContinuationToken")
            return Page(objects, prefixes, token or _missing("NextContinuationToken"))
        marker = root.findtext(f"{space}NextMarker") or ""
        last = [*(info.key for info in objects[-1:]), *prefixes[-1:]]
        return Page(objects, prefixes, _marker(marker, last, is_encoded=_is_encoded(root, space)))


def _without_echo(body: bytes) -> bytes:
    """Leave out what was asked for: Ceph repeats it as it is, also what no XML document holds."""
    head, separator, rest = body.partition(b"<Contents>")
    if b"<CommonPrefixes>" in head:
        return body
    return _ECHO.sub(b"", head) + separator + rest


def storable(time_ns: int) -> int:
    """A time as a database and a kernel can hold it; those behind the year 2262 count as 1970."""
    return time_ns if abs(time_ns) < _TIME_MAX_NS else 0


def _objects(root: ElementTree.Element, space: str) -> list[ObjectInfo]:
    decode = unquote_plus if _is_encoded(root, space) else str
    objects = []
    for contents in root.iterfind(f"{space}Contents"):
        field = {child.tag[len(space) :]: child.text or "" for child in contents}
        objects.append(
            ObjectInfo(
                decode(field["Key"]) if "Key" in field else _missing("Key"),
                _size(field["Size"]) if "Size" in field else int(_missing("Size")),
                _iso_date_ns(field.get("LastModified", "")),
                etag_from(field.get("ETag", "")),
            )
        )
    return objects


def _prefixes(root: ElementTree.Element, space: str) -> list[str]:
    decode = unquote_plus if _is_encoded(root, space) else str
    found = (one.text for one in root.iterfind(f"{space}CommonPrefixes/{space}Prefix"))
    return [decode(text) for text in found if text]


def _marker(said: str, last: list[str], *, is_encoded: bool) -> str:
    """Return behind which key the next page begins: the last name of this one.

    Some stores leave the marker as it is when they encode the keys, and some give none.
    """
    decoded = unquote_plus(said) if is_encoded else said
    return said if said in last else decoded or max(last, default="") or _missing("NextMarker")


def _is_encoded(root: ElementTree.Element, space: str) -> bool:
    return root.findtext(f"{space}EncodingType") == "url"


def _missing(name: str) -> str:
    raise ValueError(f"the listing has no {name}")


def _size(text: str) -> int:
    if not SIZE.fullmatch(text):
        raise ValueError(f"an object of {text[:80]!r} bytes")
    return int(text)


def _iso_date_ns(text: str) -> int:
    date = datetime.fromisoformat(text)
    since = (date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH
    seconds = since.days * 86400 + since.seconds
    return storable(seconds * SECOND_NS + since.microseconds * _MICROSECOND_NS)


def etag_from(text: str) -> str:
    """Return what names a version in a store's text of an etag, be it strong, weak or bare.

    A proxy on the way makes an etag weak in some answers and leaves it in others.
    """
    return text.removeprefix(WEAK).strip('"')

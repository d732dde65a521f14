"""Extended attributes as they lie in an object's user metadata, in the form that s3fs gives them.

One entry, `xattr`, holds them all: a JSON object of names and base64 values, percent-encoded (s3fs
`src/s3fs.cpp`: build_xattrs, parse_xattrs). Whoever may write to the bucket chooses it, so what
makes no sense counts as not given.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import quote, unquote

METADATA = "xattr"  # the entry's name in the metadata of an object
NAME_MAX = 255  # bytes, XATTR_NAME_MAX
TEXT_MAX = 64 * 1024  # bytes of the entry; providers keep 2 to 8 KiB
COUNT_MAX = 1000
REMEMBERED = 1000  # texts whose attributes are kept decoded

NONE: Mapping[bytes, bytes] = MappingProxyType({})


@lru_cache(REMEMBERED)
def xattrs_of(text: str) -> Mapping[bytes, bytes]:
    """Return the attributes that `text` tells; none of those that make no sense."""
    if not text or len(text) > TEXT_MAX:
        return NONE
    try:
        told = json.loads(unquote(text))
    except (ValueError, RecursionError):
        return NONE
    if not isinstance(told, dict) or len(told) > COUNT_MAX:
        return NONE
    found = {}
    for name, value in told.items():
        raw, data = _encoded(name), _decoded(value)
        if raw is not None and data is not None:
            found[raw] = data
    return MappingProxyType(found)


def text_of(xattrs: Mapping[bytes, bytes]) -> str:
    """Return the text that tells `xattrs`; an empty one for none."""
    if not xattrs:
        return ""
    told = {
        name.decode("utf-8", "surrogateescape"): base64.b64encode(value).decode()
        for name, value in sorted(xattrs.items())
    }
    return quote(json.dumps(told, separators=(",", ":")), safe="")


def _encoded(name: str) -> bytes | None:
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    return raw if 0 < len(raw) <= NAME_MAX and b"\0" not in raw else None


def _decoded(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None

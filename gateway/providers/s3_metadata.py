"""User metadata as HTTP headers: lower-case names, and any text in values that hold ASCII only.

A value that a header cannot carry as it is becomes an encoded word of RFC 2047, which is what S3
itself answers with for such values.
"""

import base64
import binascii
import re
from collections.abc import Mapping

from backgate.gateway.errors import StoreError

_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_PLAIN = re.compile(r"[!-~]([ -~]*[!-~])?")  # visible ASCII; blanks inside only
_ENCODED = re.compile(r"=\?utf-8\?b\?([A-Za-z0-9+/=]*)\?=", re.IGNORECASE)


def to_headers(metadata: Mapping[str, str], limit: int, store: str, key: str) -> dict[str, str]:
    """Return `metadata` as a request carries it.

    Raises `StoreError` for a name that no header can have, and for more than `limit` bytes.
    """
    headers = {name.lower(): _encoded(text) for name, text in metadata.items()}
    for name in headers:
        if not _NAME.fullmatch(name):
            raise StoreError(f"{store}: put {key!r}: {name!r} cannot name metadata", key=key)
    size = sum(len(name) + len(text) for name, text in headers.items())
    if size > limit:
        raise StoreError(f"{store}: put {key!r}: {size} bytes of metadata exceed {limit}", key=key)
    return headers


def from_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return user metadata as it was given to `to_headers`, however the store spells the names."""
    return {name.lower(): _decoded(text) for name, text in headers.items()}


def _encoded(text: str) -> str:
    if _PLAIN.fullmatch(text) and not text.startswith("=?"):
        return text
    return f"=?UTF-8?B?{base64.b64encode(text.encode('utf-8', 'surrogateescape')).decode()}?="


def _decoded(text: str) -> str:
    match = _ENCODED.fullmatch(text)
    if match is None:
        return text
    try:
        return base64.b64decode(match[1], validate=True).decode("utf-8", "surrogateescape")
    except binascii.Error:
        return text

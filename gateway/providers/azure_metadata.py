"""User metadata as Azure takes it: names are identifiers of C#, values are headers.

A character that no identifier holds is written `_x` and its two hexadecimal digits: `other-name`
is `other_x2dname`. Names that other tools gave read as they are.
"""

import re
from collections.abc import Mapping

from backgate.gateway.providers.s3_metadata import from_headers

PREFIX = "x-ms-meta-"

_ODD = re.compile(r"[^a-z0-9_]|^[0-9]|_(?=x[0-9a-f]{2})")
_ESCAPED = re.compile("_x([0-9a-f]{2})")


def to_azure(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for `metadata`, whose values are headers' already (`to_headers`)."""
    return {PREFIX + _ODD.sub(_escape, name): text for name, text in metadata.items()}


def from_azure(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata that an answer's headers hold, as it was given."""
    named = {
        name[len(PREFIX) :].lower(): text
        for name, text in headers.items()
        if name.lower().startswith(PREFIX)
    }
    return from_headers({_ESCAPED.sub(_unescape, name): text for name, text in named.items()})


def _escape(match: re.Match[str]) -> str:
    return f"_x{ord(match[0]):02x}"


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))

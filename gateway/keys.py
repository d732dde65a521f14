"""How object keys are shown as paths, and back, without two keys ever sharing a path.

A key is split at "/". Most components are names already and are shown as they are. One that POSIX
cannot hold, or that could be mistaken, is shown behind the marker `%=`:

    ""                  `%=`    so `a//b` is `a/%=/b`, and a body stored under `a/` is `a/%=`
    "." and ".."        `%=%2E`, `%=%2E%2E`
    NUL, lone surrogate `%=` and the component with those percent-encoded
    "%=..."             `%=%25=...`
    over 255 bytes      `%=~<its beginning>~<16 hex digits of its sha256>`

An object `a` beside objects `a/...` would share its name with the directory; the directory keeps
it, and the object is shown as `%=a`. Every escape is canonical: a name that says the same in
another way is refused.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backgate.gateway.errors import InvalidKey

if TYPE_CHECKING:  # every command looks at names, and not every one at a store
    from backgate.gateway.provider import Abilities

MARK = "%="
NAME_MAX = 255  # bytes; POSIX, and every file system that a backup might be restored to
_ABBREVIATED_MAX = NAME_MAX - len(MARK)  # bytes; leaves room to show it beside a directory
_DIGITS = 16  # hex digits of the hash: 64 bits tell the siblings of one directory apart
_BEGINNING_MAX = _ABBREVIATED_MAX - len(MARK) - len("~~") - _DIGITS  # bytes

_ESCAPED = re.compile("[%~\0\ud800-\udfff]")
_ESCAPES = re.compile("(?:%[0-9A-F]{2})+")
_ABBREVIATED = re.compile(f"{MARK}~(.*)~[0-9a-f]{{{_DIGITS}}}", re.DOTALL)
_ORDINARY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")  # quick to tell; most names are

# Of a component in UTF-8: true for almost all that are shown as they are; ED A0 begins surrogates.
is_plain_name = re.compile(rb"(?!%=|\.\.?\Z)(?:[^\0/\xed]|\xed[\x80-\x9f]){1,255}").fullmatch
_UNNAMEABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Component:
    """What a name in a directory stands for."""

    text: str  # the component of the key; of an abbreviated one only its beginning
    is_beside: bool = False  # the object that lies beside a directory of its name
    is_abbreviated: bool = False  # too long to be read back: found among the siblings


def name_of(component: str) -> str:
    """Return the name under which `component` of a key is shown."""
    if _ORDINARY.fullmatch(component) or _is_plain(component):
        return component
    escaped = MARK + _escape(component)
    return escaped if _length(escaped) <= _ABBREVIATED_MAX else _abbreviate(component)


def name_beside(component: str) -> str:
    """Return the name of the object `component` where a directory has the name `component`."""
    name = name_of(component)
    if name.startswith(MARK):
        return MARK + name
    escaped = MARK + _escape(component)
    return escaped if _length(escaped) <= NAME_MAX else MARK + _abbreviate(component)


def component_of(name: str) -> Component:
    """Return what `name` stands for.

    Raises `InvalidKey` when no component of any key is shown under it.
    """
    if not name.startswith(MARK):
        if not _is_plain(name):
            raise InvalidKey(f"{name!r}: not a name")
        return Component(name)
    inner = name.removeprefix(MARK)
    if inner.startswith(MARK):
        component = component_of(inner)
        if component.is_beside:
            raise InvalidKey(f"{name!r}: not a canonical escape")
        return Component(component.text, True, component.is_abbreviated)
    if found := _ABBREVIATED.fullmatch(name):
        return Component(_unescape(found[1]), is_abbreviated=True)
    text = _unescape(inner)
    if name == name_of(text):
        return Component(text)
    if name != name_beside(text):
        raise InvalidKey(f"{name!r}: not a canonical escape")
    return Component(text, is_beside=True)


def path_of(key: str) -> list[str]:
    """Return the names that lead to `key`, where nothing else has its name."""
    return [name_of(component) for component in key.split("/")]


def key_of(path: Iterable[str]) -> str:
    """Return the key that `path_of` showed as `path`; no name of it may be abbreviated.

    Raises `InvalidKey` for names that `path_of` does not give.
    """
    components = [component_of(name) for name in path]
    for component in components:
        if component.is_beside or component.is_abbreviated:
            raise InvalidKey(f"{component.text!r}: only a directory can tell its key")
    return "/".join(component.text for component in components)


def new_key(prefix: str, name: bytes, abilities: "Abilities") -> str:
    """Return the key of a file that a tool creates as `name` in the directory `prefix`.

    A directory's key is the same with "/" behind. Raises `InvalidKey` with the reason when no
    object can be stored under that name, or would not be shown under it again.
    """
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise InvalidKey(f"{name!r}: keys of objects are UTF-8, and this name is not") from None
    component = component_of(text)
    if component.is_abbreviated or component.is_beside:
        raise InvalidKey(f"{text!r}: names that begin with {MARK} stand for keys that exist")
    if not component.text:
        raise InvalidKey(f"{text!r}: an empty file of this name would be the directory itself")
    key = prefix + component.text
    if reason := abilities.fault(key):
        raise InvalidKey(f"{key!r}: {reason}", key=key)
    return key


def parent_of(key: str) -> str:
    """Return the prefix of the directory in which the object `key` lies; "" is the root."""
    return key[: key.rfind("/") + 1]


def _is_plain(component: str) -> bool:
    if component.isascii():
        length, unnameable = len(component), "\0" in component
    else:
        length, unnameable = _length(component), _UNNAMEABLE.search(component) is not None
    if unnameable or not 0 < length <= NAME_MAX or component.startswith(MARK):
        return False
    return component not in (".", "..") and "/" not in component


def _escape(component: str) -> str:
    if component in (".", ".."):
        return component.replace(".", "%2E")
    return _ESCAPED.sub(lambda found: _percent(found[0]), component)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _unescape(text: str) -> str:
    try:
        return _ESCAPES.sub(
            lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogatepass"),
            text,
        )
    except UnicodeDecodeError:
        raise InvalidKey(f"{text!r}: not a canonical escape") from None


def _abbreviate(component: str) -> str:
    beginning, length = [], 0
    for character in component:
        shown = _escape(character) if character != "." else character
        length += _length(shown)
        if length > _BEGINNING_MAX:
            break
        beginning.append(shown)
    digest = hashlib.sha256(component.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{MARK}~{''.join(beginning)}~{digest[:_DIGITS]}"


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

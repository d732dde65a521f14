"""Names that are hard to keep: which of them a store stores, lists and gives back as they are."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.validation.bench import Bench
from backgate.gateway.validation.report import Seen

_CONTROLS = "".join(chr(code) for code in range(1, 32) if chr(code) not in "\t\n")

# What is tried, and the setting of a profile that keeps Backgate from trying it.
ODD: Mapping[str, tuple[str, tuple[str, Any] | None]] = {
    "composed letters": (unicodedata.normalize("NFC", "é"), ("refused", "é")),
    "decomposed letters": (unicodedata.normalize("NFD", "é"), ("refused", "\u0301")),
    "letters beyond 16 bits": ("😀", ("refused", "😀")),
    "blanks": (" a  b ", None),
    "percent signs": ("100%25", ("refused", "%")),
    "plus signs": ("a+b", ("refused", "+")),
    "markup": ("a&b<c>\"d'", ("refused", "&<>\"'")),
    "query signs": ("a?b#c", ("refused", "?#")),
    "tabs": ("a\tb", ("refused", "\t")),
    "newlines": ("a\nb", ("refused", "\n")),
    "control characters": ("a\x01b", ("refused", _CONTROLS)),
    "the character 0": ("a\x00b", ("refused", "\x00")),
    "backslashes": ("a\\b", ("refused", "\\")),
    "components of 255 bytes": ("c" * 255, ("component_max", 250)),
    "components of 256 bytes": ("c" * 256, ("component_max", 255)),
    "components that are a dot": ("d/./x", ("dot_components", False)),
    "components that are two dots": ("d/../x", ("dot_components", False)),
    "empty components": ("d//x", ("empty_components", False)),
    "keys of 1024 bytes": ("", None),  # made as long as the prefix lets it
}
TRIED = "".join(rule[1] for _, rule in ODD.values() if rule and rule[0] == "refused")
LONGEST = 1024  # bytes of UTF-8
_COMPONENT = 100  # bytes; no store minds it


@dataclass(frozen=True, slots=True)
class _Tried:
    fate: str  # "kept", "refused" or "changed"
    rule: tuple[str, Any] | None


async def special_keys(bench: Bench) -> Seen:
    """Which names are kept, which refused, and which become other names or vanish?"""
    tried = {
        what: _Tried(await _fate(bench, number, name), rule)
        for number, (what, (name, rule)) in enumerate(ODD.items())
    }
    changed = [what for what, one in tried.items() if one.fate == "changed"]
    refused = [what for what, one in tried.items() if one.fate == "refused"]
    settings = _rules([one.rule for one in tried.values() if one.fate != "kept" and one.rule])
    parts = [f"changed or hidden: {', '.join(changed)}"] if changed else []
    parts += [f"refused: {', '.join(refused)}"] if refused else []
    outcome = "changed" if changed else "refused" if refused else "kept"
    return Seen("special keys", outcome, "; ".join(parts), settings)


async def markers(bench: Bench) -> Seen:
    """Is `name/` an object like any other?"""
    key = bench.area.key("names/marker/")
    metadata = {"mode": "16877"}
    await bench.put(key, b"", metadata)
    await bench.put(bench.area.key("names/marker/below"))
    try:
        found = await bench.head(key)
        is_listed = key in await bench.names(key)
    except StoreError as error:
        return Seen("markers", "lost", str(error), {"markers_are_objects": False})
    if found.metadata != metadata or not is_listed:
        return Seen("markers", "lost", "without its metadata", {"markers_are_objects": False})
    return Seen("markers", "kept", "", {"markers_are_objects": True})


async def file_beside_directory(bench: Bench) -> Seen:
    """Can `a` and `a/b` be there together?"""
    keys = [bench.area.key("names/both/a"), bench.area.key("names/both/a/b")]
    for key in keys:
        await bench.put(key, key.encode())
    read = [await bench.get(key, 0, LONGEST) for key in keys]
    listed = sorted(await bench.names(f"{bench.area.prefix}names/both/"))
    is_right = read == [key.encode() for key in keys] and listed == keys
    return Seen("file beside directory", "kept" if is_right else "lost")


async def forgotten_prefixes(bench: Bench) -> Seen:
    """Is a common prefix gone with the last key below it?"""
    key = bench.area.key("names/forgotten/a/b")
    await bench.put(key)
    await bench.asker.delete([key])
    left = await bench.names(f"{bench.area.prefix}names/forgotten/", "/")
    if left:
        return Seen("empty prefixes", "stay", "", {"forgets_prefixes": False})
    return Seen("empty prefixes", "are forgotten", "", {"forgets_prefixes": True})


async def _fate(bench: Bench, number: int, name: str) -> str:
    """What becomes of an object with `name`, among others that are its neighbours."""
    prefix = f"{bench.area.prefix}names/odd/{number}/"
    if not name:
        missing = LONGEST - len(prefix.encode())
        name = "/".join(["c" * _COMPONENT] * (missing // _COMPONENT + 1))[:missing].rstrip("/")
        name += "x" * (missing - len(name))
    key = bench.area.key(f"names/odd/{number}/{name}")
    put = partial(bench.provider.put, key, key.encode())
    try:
        await bench.asker.surely("put", put)
    except Unreachable:
        raise
    except StoreError:
        bench.area.forget(key)
        return "refused"
    try:
        read = await bench.get(key, 0, LONGEST + 1)
        listed = await bench.names(prefix)
    except StoreError:
        return "changed"
    return "kept" if read == key.encode() and listed == [key] else "changed"


def _rules(rules: list[tuple[str, Any]]) -> dict[str, Any]:
    """Settings of a profile's `keys` that refuse what was not kept, and nothing else of `ODD`."""
    settings: dict[str, Any] = {
        "keys.component_max": min(
            (value for name, value in rules if name == "component_max"), default=None
        ),
        "keys.refused": "".join(value for name, value in rules if name == "refused"),
    }
    for name in ("dot_components", "empty_components"):
        settings[f"keys.{name}"] = (name, False) not in rules
    return settings

"""The text in which LVM2 keeps what it knows of a volume group, as sections of keys and values."""

import re
from collections.abc import Iterator
from typing import TypeAlias

from backgate.gateway.errors import Damaged

Value: TypeAlias = "int | str | list[int | str]"
Section: TypeAlias = "dict[str, Value | Section]"

TEXT_MAX = 8 << 20  # bytes; a thousand volumes of ten segments each need less than 5 MiB
DEPTH_MAX = 16  # sections in one another; a volume group has four

TOKEN = re.compile(
    r"""[ \t\r\n]+ | \#[^\n]* |
    (?P<text>"(?:\\.|[^"\\])*") |
    (?P<number>-?[0-9]+(?![0-9A-Za-z_.+-])) |
    (?P<word>[A-Za-z0-9_.+-][A-Za-z0-9_.+/-]*) |
    (?P<mark>[{}\[\]=,])""",
    re.VERBOSE | re.DOTALL,
)
NUMBER_MAX = 20  # digits


def parsed(text: str) -> Section:
    """Return the sections of `text`.

    Raises `Damaged` where it is not LVM's grammar, or nests deeper than anything that LVM writes.
    """
    return _Parser(text).section("", 0)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0  # how far the text has been understood, for errors

    def _next(self) -> tuple[str, str]:
        kind, value, self._at = next(self._tokens, ("end", "", self._at))
        return kind, value

    def _wrong(self, expected: str) -> Damaged:
        return Damaged("LVM metadata", self._at, f"{expected} is expected")

    def section(self, ending: str, depth: int) -> Section:
        if depth > DEPTH_MAX:
            raise Damaged("LVM metadata", self._at, f"more than {DEPTH_MAX} nested sections")
        found: Section = {}
        while True:
            kind, name = self._next()
            if (kind, name) == ("mark", ending) or (kind == "end" and not ending):
                return found
            if kind not in ("word", "number"):
                raise self._wrong("a name")
            _, mark = self._next()
            if mark == "{":
                found[name] = self.section("}", depth + 1)
            elif mark == "=":
                found[name] = self._value()
            else:
                raise self._wrong("= or {")

    def _value(self) -> Value:
        kind, value = self._next()
        if (kind, value) == ("mark", "["):
            return self._values()
        return self._single(kind, value)

    def _values(self) -> list[int | str]:
        found: list[int | str] = []
        while True:
            kind, value = self._next()
            if (kind, value) == ("mark", "]"):
                return found
            if (kind, value) != ("mark", ","):
                found.append(self._single(kind, value))

    def _single(self, kind: str, value: str) -> int | str:
        if kind == "number":
            if len(value) > NUMBER_MAX:
                raise self._wrong("a number of 64 bits")
            return int(value)
        if kind == "text":
            return re.sub(r"\\(.)", r"\1", value[1:-1])
        if kind == "word":
            return value
        raise self._wrong("a value")


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield (kind, value, where it begins)."""
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise Damaged("LVM metadata", at, f"{text[at : at + 20]!r} means nothing")
        if match.lastgroup is not None:
            yield match.lastgroup, match.group(), at
        at = match.end()

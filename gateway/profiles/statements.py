"""What a profile states, key by key, and how well each statement is supported."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from backgate.gateway.profiles import Confidence, Fact, Profile

Support: TypeAlias = (
    Confidence | Literal["assumed"]
)  # assumed: nobody says so, it is the safe choice

CONFIRMED = ("test", "source", "documentation")
_ORDER = dict.fromkeys(("test", *get_args(Confidence)))  # the best first
_STRENGTH = {one: number for number, one in enumerate(_ORDER)}
_TEXTS = ("title", "summary", "scheme", "facts")  # keys that state nothing about the store


@dataclass(frozen=True, slots=True)
class Statement:
    """One key of a profile, those in tables as `limits.part_max`."""

    key: str
    value: Any  # as JSON has it
    support: Support
    sources: tuple[str, ...]

    @property
    def is_confirmed(self) -> bool:
        return self.support in CONFIRMED


def statements(profile: Profile) -> list[Statement]:
    """Return all that `profile` states, also what it only assumes."""
    return [_statement(key, value, profile.facts) for key, value in _values(profile).items()]


def _values(profile: Profile) -> dict[str, Any]:
    abilities = profile.abilities()
    tables: dict[str, Mapping[str, Any]] = {
        "limits": asdict(abilities.limits),
        "keys": asdict(abilities.keys),
        "rate": asdict(abilities.rates),
        "price": {} if profile.price is None else msgspec.to_builtins(profile.price),
    }
    values: dict[str, Any] = {}
    for key in profile.__struct_fields__:
        if key in tables:
            values |= {f"{key}.{name}": value for name, value in tables[key].items()}
        elif key not in _TEXTS:
            values[key] = getattr(profile, key)
    return values


def _statement(key: str, value: Any, facts: list[Fact]) -> Statement:
    """Return the statement of `key`; what is said of a table holds for what nobody names in it."""
    table = key.partition(".")[0]
    about = [fact for fact in facts if key in fact.about]
    about = about or [fact for fact in facts if table in fact.about]
    if not about:
        return Statement(key, value, "assumed", ())
    support = min((fact.confidence for fact in about), key=_STRENGTH.__getitem__)
    return Statement(key, value, support, tuple(dict.fromkeys(fact.source for fact in about)))

"""What each provider is known to do worse than others, as data: one TOML file for each.

A file is a list of weaknesses. Each says what is known and by whom, and how the proxy shows it: by
rules, by listings of its own, by headers that never arrive.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from servers.faults.listings import Listings
from servers.faults.rule import Rule

DIRECTORY = Path(__file__).with_name("providers")
NAMES = sorted(path.stem for path in DIRECTORY.glob("*.toml"))


class Weakness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a provider does, who says so, and how it is shown."""

    fact: str
    source: str
    outside_the_contract: bool = False  # no provider of ours can hide it: a cache above must
    rules: list[dict[str, Any]] = []  # those of `Rule`
    listings: dict[str, Any] = {}  # those of `Listings`
    drops: list[str] = []  # headers of requests that the server never sees, in lower case
    ignores_expect: bool = False  # nobody who asks is told to go on


@dataclass(slots=True, kw_only=True)
class RuleSet:
    """A provider's weaknesses, ready for one proxy: rules count what they see."""

    rules: list[Rule] = field(default_factory=list)
    listings: Listings | None = None  # None: the server's own
    drops: frozenset[str] = frozenset()
    ignores_expect: bool = False


def weaknesses(name: str) -> list[Weakness]:
    """Return what is known of the provider `name`."""
    tables = tomllib.loads((DIRECTORY / f"{name}.toml").read_text())
    return msgspec.convert(tables["weakness"], list[Weakness])


def rule_set(name: str, *, within_the_contract: bool = False) -> RuleSet:
    """Return the weaknesses of `name`; those that break the contract only if that is wanted."""
    found = list(_shown(name, within_the_contract))
    listings = {key: value for one in found for key, value in one.listings.items()}
    return RuleSet(
        rules=[_rule(table) for one in found for table in one.rules],
        listings=Listings(**listings) if listings else None,
        drops=frozenset(header for one in found for header in one.drops),
        ignores_expect=any(one.ignores_expect for one in found),
    )


def _shown(name: str, within_the_contract: bool) -> Iterator[Weakness]:
    for one in weaknesses(name):
        if not (within_the_contract and one.outside_the_contract):
            yield one


def _rule(table: dict[str, Any]) -> Rule:
    return Rule(**table)

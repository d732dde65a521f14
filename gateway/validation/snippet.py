"""What was seen, as a profile in TOML: a table of the configuration that can be pasted there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from backgate.gateway.profiles import Profile
from backgate.gateway.validation.names import TRIED
from backgate.gateway.validation.report import Finding, Seen, Tier

_WORST = ("ignored", "rejected", "enforced")  # where two measures speak of one setting


def snippet(
    name: str,
    base: Profile,
    tier: Tier | None,
    seen: Sequence[Seen],
    findings: Sequence[Finding],
    day: str,
) -> str:
    """Return `[provider.NAME]`: `base` with what was measured on `day` (2026-11-22)."""
    table = _differing(base)
    table.pop("facts", None)
    table["title"] = f"{base.title}, measured"
    table |= {} if tier is None else {"tier": tier}
    for key, value in _settings(seen, base).items():
        section, _, inner = key.rpartition(".")
        target = table.setdefault(section, {}) if section else table
        target[inner] = value
    weak = [(one, what) for one, what in zip(findings, seen, strict=True) if one.tier != 1]
    facts = [_fact(one, sorted(what.settings), day) for one, what in weak]
    return "\n".join(_lines(f"provider.{name}", table, facts)) + "\n"


def _settings(seen: Sequence[Seen], base: Profile) -> dict[str, Any]:
    """What was seen, as settings; where measures differ, the worse counts."""
    settings: dict[str, Any] = {}
    for one in seen:
        for key, value in one.settings.items():
            before = settings.get(key, value)
            both = (before, value)
            is_worded = before in _WORST and value in _WORST
            settings[key] = min(both, key=_WORST.index) if is_worded else value
    if "keys.refused" in settings:
        untried = "".join(c for c in base.keys.get("refused", "") if c not in TRIED)
        settings["keys.refused"] += untried
    return settings


def _differing(base: Profile) -> dict[str, Any]:
    """What of `base` is not as every profile is."""
    default = Profile(title="")
    found = msgspec.to_builtins(base)
    usual = msgspec.to_builtins(default)
    return {key: value for key, value in found.items() if value != usual[key]}


def _fact(finding: Finding, about: Sequence[str], day: str) -> dict[str, Any]:
    text = ": ".join(part for part in (finding.subject, finding.outcome, finding.detail) if part)
    return {
        "about": about,
        "fact": text,
        "source": f"backgate validate, {day}",
        "confidence": "test",
    }


def _lines(
    name: str, table: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    yield f"[{name}]"
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    for key, value in table.items():
        if key not in inner and value is not None:
            yield f"{key} = {_text(value)}"
    for key, values in inner.items():
        yield from ("", f"[{name}.{key}]")
        yield from (f"{one} = {_text(value)}" for one, value in values.items() if value is not None)
    for fact in facts:
        yield from ("", f"[[{name}.facts]]")
        yield from (f"{one} = {_text(value)}" for one, value in fact.items())


def _text(value: Any) -> str:
    """Return `value` as TOML; JSON's texts are TOML's, but for a character and half characters."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(one) for one in value)}]"
    if isinstance(value, str):
        whole = value.encode("utf-8", "replace").decode()
        return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007F")
    return json.dumps(value)

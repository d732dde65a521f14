"""`backgate providers`: what is known of each provider, and who says so."""

import textwrap
from typing import TYPE_CHECKING, Any

import click

from backgate.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from backgate.gateway.profiles import Profile
    from backgate.gateway.profiles.statements import Statement

WIDTH = 100  # characters of running text; tables are as wide as they need
UNKNOWN = "not known"
WITHOUT = {  # what it means that a key has no value
    "endpoint": "yours",
    "region": "yours to choose",
    "signing_region": "the region",
    "keys.component_max": "no limit",
    "keys.component_count": "no limit",
    "rate.put": "no limit known",
    "rate.get": "no limit known",
    "rate.list": "no limit known",
}
SIZES = ("part_min", "part_max", "put_max", "object_max", "copy_max", "key_max", "metadata_max")


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Show the known providers, or all that is known of one.

    Each statement is confirmed (by a test, source code or the provider's documentation), not
    confirmed (somebody says so, or nobody is sure), or assumed: the safe choice where nothing is
    known. NAME is what `provider` in the configuration and --provider take. `backgate validate`
    measures a provider instead of believing anybody.

    \b
    Examples:
      backgate providers
      backgate providers wasabi
    """
    from backgate.gateway.profiles import profile, profiles

    names = sorted(profiles()) if name is None else [name]
    found = {one: profile(one) for one in names}
    if as_json:
        told = [_told(one, known, is_whole=name is not None) for one, known in found.items()]
        print_json(told if name is None else told[0])
    elif name is None:
        _print_all(found)
    else:
        _print_one(name, found[name])


def _told(name: str, known: "Profile", *, is_whole: bool) -> dict[str, Any]:
    """Return what is printed as JSON: in a list without the sources."""
    from msgspec import to_builtins

    from backgate.gateway.plugins import origin
    from backgate.gateway.profiles import profiles
    from backgate.gateway.profiles.statements import statements

    stated = statements(known)
    told: dict[str, Any] = {
        "name": name,
        "title": known.title,
        "tier": known.tier,
        "scheme": known.scheme,
        "from": origin(profiles()[name]),
        "summary": known.summary,
        "confirmed": [one.key for one in stated if one.is_confirmed],
        "unconfirmed": [one.key for one in stated if _is_claimed(one)],
        "assumed": [one.key for one in stated if one.support == "assumed"],
    }
    if is_whole:
        told["values"] = {one.key: {"value": one.value, "support": one.support} for one in stated}
        told["facts"] = to_builtins(known.facts)
    return told


def _print_all(found: dict[str, "Profile"]) -> None:
    from backgate.gateway.profiles.statements import statements

    rows = []
    for name, known in found.items():
        stated = statements(known)
        confirmed = sum(one.is_confirmed for one in stated)
        claimed = dict.fromkeys(one.key.partition(".")[0] for one in stated if _is_claimed(one))
        rows.append((name, _tier(known), str(confirmed), ", ".join(claimed) or "-"))
    print_table(("NAME", "TIER", "CONFIRMED", "NOT CONFIRMED"), rows, right="CONFIRMED")
    click.echo("\n`backgate providers NAME` shows all that is known of one, and who says so")


def _print_one(name: str, known: "Profile") -> None:
    from backgate.gateway.profiles.statements import statements

    click.echo(f"{name}: {known.title}, tier {_tier(known)}")
    if known.summary:
        click.echo(textwrap.fill(known.summary, WIDTH))
    click.echo()
    rows = [(one.key, one.support, _text(one)) for one in statements(known)]
    print_table(("KEY", "HOW SURE", "VALUE"), rows)
    for fact in known.facts:
        about = ", ".join(fact.about) or "in general"
        click.echo(f"\n{about} ({fact.confidence})")
        click.echo(textwrap.fill(fact.fact, WIDTH, initial_indent="  ", subsequent_indent="  "))
        click.echo(f"  {fact.source}")


def _is_claimed(one: "Statement") -> bool:
    return not one.is_confirmed and one.support != "assumed"


def _tier(known: "Profile") -> str:
    return "?" if known.tier is None else str(known.tier)


def _text(one: "Statement") -> str:
    """Return a value as a person reads it."""
    from backgate.gateway.units import exact_size_to_text

    value = one.value
    if value is None:
        return WITHOUT.get(one.key, UNKNOWN)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(value) or ("any" if one.key == "regions" else "none")
    if one.key.partition(".")[2] in SIZES:
        return exact_size_to_text(value)
    text = str(value)
    return (text if text.isprintable() else repr(text)[1:-1]) or "none"

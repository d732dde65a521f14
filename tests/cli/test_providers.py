"""`backgate providers` and `backgate plugins`: what is known, who says so, and whose it is."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from backgate.cli.main import main
from backgate.gateway import plugins
from backgate.gateway.profiles import Profile, profile, profiles

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(printed(capsys, *arguments, "--json"))


def test_all_providers_are_listed_with_tier_and_what_is_not_confirmed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed(capsys, "providers").splitlines()

    rows = {line.split()[0]: line.split() for line in lines[1 : len(profiles()) + 1]}
    assert rows.keys() == profiles().keys()
    assert rows["backblaze-b2"][1] == "3"
    assert "conditional_put" in " ".join(rows["backblaze-b2"])
    assert rows["minio"][1] == "?"


@pytest.mark.parametrize("name", profiles())
def test_one_provider_is_shown_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "providers", name)

    found = profile(name)
    assert text.startswith(f"{name}: {found.title}, tier ")
    for fact in found.facts:
        assert fact.source in text
    assert " None\n" not in text


def test_a_program_is_told_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    one = told(capsys, "providers", "wasabi")
    everybody = {each["name"]: each for each in told(capsys, "providers")}

    assert one["values"]["minimum_days"] == {"value": 90, "support": "third party"}
    assert one["from"] == "backgate"
    assert any("90 days" in fact["fact"] for fact in one["facts"])
    assert everybody.keys() == profiles().keys()
    assert everybody["wasabi"] == {key: one[key] for key in everybody["wasabi"]}
    assert "minimum_days" in one["unconfirmed"]
    assert "regions" in one["confirmed"]
    assert "list_version" in one["assumed"]


def test_an_unknown_provider_is_said_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["providers", "wasabbi"])

    assert ended.value.code == 2
    assert "did you mean 'wasabi'" in capsys.readouterr().err


def test_plug_ins_of_one_name_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = EntryPoint("wasabi", "theirs:profile", "backgate.profiles")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [theirs])

    with pytest.raises(SystemExit) as ended:
        main(["plugins"])

    assert ended.value.code == 2
    assert "two plug-ins are called 'wasabi'" in capsys.readouterr().err


@pytest.mark.parametrize("name", profiles())
def test_the_page_of_providers_says_what_the_profiles_say(name: str) -> None:
    assert row(name, profile(name)) in PAGE.read_text().splitlines()


def row(name: str, found: Profile) -> str:
    """The line of a provider in the table of docs/providers.md."""
    limits = found.abilities().limits
    cells = (
        f"`{name}`",
        found.title,
        str(found.tier or "?"),
        _written(found),
        found.conditional_put,
        _listed(found),
        f"{limits.object_max / 1e12:.3g} TB",
        {True: "yes", False: "no", None: "?"}[found.object_lock],
        f"{found.minimum_days} days" if found.minimum_days else "-",
    )
    return f"| {' | '.join(cells)} |"


def _written(found: Profile) -> str:
    """What stands beside `provider` in the configuration."""
    if found.endpoint is None:
        return "`endpoint_url`"
    if "{account}" in found.endpoint:
        return "`account`"
    return "`region`" if found.region is None else "-"


def _listed(found: Profile) -> str:
    words = ["in order" if found.lists_in_order else "any order"]
    words += ["slow"] if found.list_slow else []
    words += ["late"] if found.list_consistency == "eventual" else []
    return ", ".join(words)

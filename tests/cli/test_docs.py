"""Whatever a user can type or configure is in the documentation."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from backgate.cli.main import backgate
from backgate.gateway.config import NOT_WRITTEN, RepositoryConfig

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def commands(
    group: click.Group = backgate, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def section(name: str) -> str:
    """The part of commands.md on a command, with what is said there for all."""
    text = (DOCS / "commands.md").read_text()
    general, _, rest = text.partition("\n## ")
    found = [part for part in rest.split("\n### ") if part.startswith(f"backgate {name} ")]
    found += [part for part in rest.split("\n### ") if part.split("\n")[0] == f"backgate {name}"]
    assert len(found) == 1, name
    return general + found[0].partition("\n## ")[0]


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_and_option_is_documented(name: str) -> None:
    command = dict(commands())[name]
    text = section(name.split()[0])

    for word in name.split():
        assert word in text
    for parameter in command.params:
        for option in parameter.opts + parameter.secondary_opts:
            if option.startswith("-"):
                assert f"`{option}`" in text, option


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_that_prints_takes_json(name: str) -> None:
    options = [option for one in dict(commands())[name].params for option in one.opts]

    prints_no_record = {"mount", "cat", "completion"}
    assert ("--json" in options) == (name not in prints_no_record)


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_help_text_teaches_by_example(name: str) -> None:
    command = dict(commands())[name]

    assert command.help is not None
    assert re.search(r"Examples?:\n +backgate " + name.split()[0], command.help)


def test_every_configuration_key_is_documented() -> None:
    text = (DOCS / "configuration.md").read_text()

    for key in set(RepositoryConfig.__struct_fields__) - NOT_WRITTEN:
        assert f"| `{key}` |" in text


def test_no_key_is_documented_that_there_is_not() -> None:
    text = (DOCS / "configuration.md").read_text()

    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) <= set(
        RepositoryConfig.__struct_fields__
    )


def test_every_dependency_is_explained() -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2]
    names = re.findall(r'"([A-Za-z0-9_-]+)[>=]', project.partition("\n]\n")[0])
    text = (DOCS / "dependencies.md").read_text()

    assert names
    for name in names:
        assert f"\n| {name} |" in text


@pytest.mark.parametrize(
    "page", sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")]), ids=lambda p: p.name
)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target

"""What every command that takes a TARGET shares: its options, and the repository that it means."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from backgate.gateway.errors import UsageError

if TYPE_CHECKING:
    from backgate.gateway.config import RepositoryConfig
    from backgate.gateway.targets import Target

F = TypeVar("F", bound=Callable[..., Any])

NOTHING: Mapping[str, Any] = MappingProxyType({})

_GIVEN = "backgate.repository_options"  # where a context keeps what was given

# (option, its key in the configuration, variables of the environment, help)
_OPTIONS = (
    ("--provider", "provider", ["BACKGATE_PROVIDER"], "The provider's profile, such as aws."),
    (
        "--region",
        "region",
        ["BACKGATE_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"],
        "The store's region.",
    ),
    (
        "--account",
        "account",
        ["BACKGATE_ACCOUNT"],
        "The account, for providers whose addresses begin with it.",
    ),
    (
        "--endpoint-url",
        "endpoint_url",
        ["BACKGATE_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        "Where the store answers, for providers whose profile does not say.",
    ),
    (
        "--credentials",
        "credentials",
        ["BACKGATE_CREDENTIALS"],
        "Where the keys lie: env, profile:NAME, file:PATH or systemd:NAME.",
    ),
)


def complete_target(
    _context: click.Context, _parameter: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Return the configured repositories that begin with `typed`; a path is the shell's to find."""
    from backgate.gateway.config import load_configuration
    from backgate.gateway.errors import ConfigError

    if typed.startswith((".", "/", "~")):
        return [CompletionItem(typed, type="dir")]
    try:
        names = load_configuration().repositories
    except ConfigError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(typed)]


target_argument = click.argument("target", metavar="TARGET", shell_complete=complete_target)
optional_target_argument = click.argument(
    "target", metavar="[TARGET]", required=False, shell_complete=complete_target
)


class _MountPoint(click.Path):
    """A directory, for the shell to complete; not looked at, since a mount there may hang."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value


directory_argument = click.argument("directory", metavar="DIR", type=_MountPoint(file_okay=False))


@dataclass(frozen=True, slots=True)
class Choice:
    """The repository and the place in its tree that a command line names."""

    target: "Target"
    config: "RepositoryConfig"


def repository_options(command: F) -> F:
    """Give `command` the options that describe a repository; `chosen` reads them."""
    command = click.option(
        "--secret",
        "secrets",
        metavar="FORMAT=WHERE",
        multiple=True,
        expose_value=False,
        callback=_keep,
        help="Where a format's password lies: restic=file:PATH, restic=env:NAME, ...",
    )(command)
    for option, name, variables, text in reversed(_OPTIONS):
        command = click.option(
            option,
            name,
            envvar=variables,
            metavar="TEXT",
            expose_value=False,
            callback=_keep,
            help=text,
        )(command)
    return command


def chosen(context: click.Context, text: str, more: Mapping[str, Any] = NOTHING) -> Choice:
    """Return what TARGET `text` means with the options of `context`'s command, and `more` keys.

    What stands on the command line changes a configured repository too; the environment only
    completes a URL. Raises `UsageError`.
    """
    from backgate.gateway.config import load_configuration
    from backgate.gateway.targets import parse_target, resolve

    target = parse_target(text)
    given = context.meta[_GIVEN]
    options: dict[str, Any] = dict(more)
    for _, name, variables, _ in _OPTIONS:
        is_typed = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if given[name] and (is_typed or _completes(target, variables)):
            options[name] = _from_here(given[name])
    if given["secrets"]:
        options["secrets"] = dict(_secret(pair) for pair in given["secrets"])
    return Choice(target, resolve(target, load_configuration(), options))


def _completes(target: "Target", variables: Sequence[str]) -> bool:
    """True when the environment is to complete `target`: a URL, with what is meant for it."""
    from backgate.gateway.endpoints import NATIVE

    if not target.is_url or target.repository.partition(":")[0].lower() not in NATIVE:
        return target.is_url
    return any(os.environ.get(name) for name in variables if not name.startswith("AWS_"))


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    context.meta.setdefault(_GIVEN, {})[parameter.name] = value


def _secret(pair: str) -> tuple[str, str]:
    name, separator, reference = pair.partition("=")
    if not separator or not name:
        raise UsageError("--secret: write FORMAT=WHERE, such as restic=file:/etc/backgate/pw")
    return name, _from_here(reference)


def _from_here(reference: str) -> str:
    """Return a reference that was typed; unlike in a file, a relative path means from here."""
    kind, separator, path = reference.partition(":")
    if kind == "file" and separator and path and not path.startswith(("/", "~")):
        return f"file:{os.path.abspath(path)}"
    return reference

"""`backgate doctor`: what is wrong on this machine and with each repository, and how to mend it."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from backgate.cli.options import chosen, optional_target_argument, repository_options
from backgate.cli.output import json_option, print_json

if TYPE_CHECKING:
    from backgate.cli.checks import Finding
    from backgate.gateway.config import RepositoryConfig


@click.command()
@optional_target_argument
@repository_options
@json_option
@click.pass_context
def command(context: click.Context, target: str | None, as_json: bool) -> None:
    """Check this machine and the repositories, and say how to mend what is wrong.

    Looks at /dev/fuse, fusermount3, limits, the configuration, credentials, secrets, folders, and
    at whether each store answers and agrees about the time. Without TARGET all configured
    repositories are checked. Nothing is written to a store. The exit code is 1 when anything is
    wrong.

    \b
    Examples:
      backgate doctor
      backgate doctor offsite
      backgate doctor s3://bucket --endpoint-url http://127.0.0.1:8333
    """
    findings = []
    for finding in _all(context, target):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    context.exit(1 if any(finding.state == "wrong" for finding in findings) else 0)


def _all(context: click.Context, target: str | None) -> Iterator["Finding"]:
    from backgate.cli import checks
    from backgate.gateway.config import load_configuration
    from backgate.gateway.errors import ConfigError

    yield from checks.machine()
    if target is not None:
        configs = [chosen(context, target).config]
    else:
        try:
            found = load_configuration()
        except ConfigError as error:
            mend = "docs/configuration.md has every key"
            yield checks.Finding("configuration", "wrong", str(error), mend)
            return
        yield checks.configuration(found)
        configs = list(found.repositories.values())
    for config in configs:
        yield from checks.repository(config)
        yield from _store(config)


def _store(config: "RepositoryConfig") -> Iterator["Finding"]:
    """Ask the store, by its provider itself: here nothing is to be retried."""
    from backgate.cli import checks
    from backgate.gateway.credentials import credentials_of
    from backgate.gateway.errors import BackgateError
    from backgate.gateway.providers import open_provider

    subject = f"{config.name}: store"
    try:
        provider, _ = open_provider(config, credentials_of(config))
    except BackgateError as error:
        yield checks.Finding(subject, "wrong", str(error), "docs/configuration.md has every key")
        return
    try:
        provider.check()
        yield checks.Finding(subject, "ok", f"{provider.name} answers")
    except BackgateError as error:
        yield checks.Finding(subject, "wrong", str(error), "docs/troubleshooting.md has the cases")
    finally:
        provider.close()
    yield checks.clock(config, provider.clock_skew)


def _print(finding: "Finding") -> None:
    colours = {"ok": "green", "warning": "yellow", "wrong": "red"}
    state = click.style(f"{finding.state:7}", fg=colours[finding.state])
    click.echo(f"{state}  {finding.subject}: {finding.says}")
    if finding.mend:
        click.echo(f"         mend: {finding.mend}")

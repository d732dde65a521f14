"""`backgate validate`: what a store does, measured, and the tier that it comes to."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backgate.cli.options import Choice, chosen, repository_options, target_argument
from backgate.cli.output import json_option, print_json, shows_progress
from backgate.gateway.errors import UsageError

if TYPE_CHECKING:
    import trio

    from backgate.gateway.profiles import Profile
    from backgate.gateway.provider import Provider
    from backgate.gateway.validation.plan import Estimate, Plan
    from backgate.gateway.validation.programme import Watch
    from backgate.gateway.validation.report import Report

FREE = ("file", "memory")  # schemes of stores that nobody charges for


@click.command()
@target_argument
@click.option(
    "--objects",
    metavar="N",
    type=click.IntRange(10, 1_000_000),
    default=10_000,
    show_default=True,
    help="Objects that listings are measured with.",
)
@click.option(
    "--deadline",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 600),
    default=60.0,
    show_default=True,
    help="How long a request may take.",
)
@click.option("--yes", is_flag=True, help="Do not ask before it costs money.")
@click.option(
    "--html",
    "page",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report as a web page too.",
)
@repository_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    target: str,
    objects: int,
    deadline: float,
    yes: bool,
    page: Path | None,
    as_json: bool,
) -> None:
    """Measure a store, and grade it Tier 1, 2 or 3, with the reasons.

    Works below backgate-validation/ in the repository and deletes everything that it wrote, also
    when it is interrupted; what a killed run has left, the next one removes. Nothing else in the
    store is read or changed. Says how many requests it will make and what they may cost, and asks.
    The report names what keeps the store from a better tier, what Backgate does about it, and ends
    with a profile for the configuration. The exit code is 1 when Backgate cannot use the store.

    \b
    Examples:
      backgate validate offsite
      backgate validate offsite --objects 100000 --html offsite.html
      backgate validate s3://bucket/test --endpoint-url http://127.0.0.1:8333 --yes --json
    """
    from backgate.cli.validation_text import print_report
    from backgate.gateway.validation.page import html
    from backgate.gateway.validation.plan import Plan

    choice = chosen(context, target)
    if choice.target.path:
        raise UsageError(f"validate: {target}: name the repository alone, without a path")
    if page is not None and not page.absolute().parent.is_dir():
        raise UsageError(f"validate: {page}: there is no such directory")
    report = _run(choice, Plan(objects=objects, deadline=deadline), is_agreed=yes)
    if report is None:
        raise click.Abort
    if page is not None:
        page.write_text(html(report), encoding="utf-8")
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
    context.exit(1 if report.tier is None or report.left_behind else 0)


def _run(choice: Choice, plan: "Plan", *, is_agreed: bool) -> "Report | None":
    """Return the report; None when somebody interrupted it, and all is cleaned up."""
    from backgate.gateway.credentials import credentials_of
    from backgate.gateway.providers import open_provider
    from backgate.gateway.validation.plan import estimate

    config = choice.config
    guarded, prefix = open_provider(config, credentials_of(config))
    provider = guarded.unguarded()
    try:
        profile = _profile(choice)
        price = None if profile is None else profile.price
        days = 0 if profile is None else profile.minimum_days
        if not is_agreed and config.url.partition(":")[0] not in FREE and config.url[0] != "/":
            _ask(estimate(plan, provider.abilities.limits, price, days), choice)
        with _progress() as watch:
            return _measured(Subject(provider, prefix, profile, config.name), plan, watch)
    finally:
        provider.close()
        if provider is not guarded:
            guarded.close()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured."""

    provider: "Provider"
    prefix: str
    profile: "Profile | None"
    name: str  # of the repository


def _measured(subject: Subject, plan: "Plan", watch: "Watch") -> "Report | None":
    import trio

    from backgate.gateway.validation.programme import validate

    async def run() -> "Report | None":
        report = None
        async with trio.open_nursery() as nursery:
            await nursery.start(_end_on_signal, nursery.cancel_scope)
            report = await validate(
                subject.provider,
                subject.prefix,
                subject.profile,
                plan,
                name=f"{subject.name}-measured",
                watch=watch,
            )
            nursery.cancel_scope.cancel()
        return report

    return trio.run(run)


async def _end_on_signal(
    scope: "trio.CancelScope", *, task_status: "trio.TaskStatus[None]"
) -> None:
    """Cancel `scope` at the first signal; a second one ends us as it ends any command."""
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            click.echo("backgate: interrupted: cleaning up", err=True)
            break
    scope.cancel()


def _profile(choice: Choice) -> "Profile | None":
    """What is known of the store; None where its kind has no profiles."""
    from backgate.gateway.endpoints import NATIVE, endpoint_of

    scheme = choice.config.url.partition("://")[0].lower()
    return endpoint_of(choice.config).profile if scheme in ("s3", *NATIVE) else None


def _ask(cost: "Estimate", choice: Choice) -> None:
    """Go on only when somebody agrees; raises `UsageError` where nobody can be asked."""
    from backgate.gateway.units import size_to_text

    if cost.cost is None:
        money = "what the store charges for that is not known"
    else:
        money = f"at most {max(cost.cost, 0.01):.2f} US dollars"
    says = (
        f"{choice.target}: about {cost.requests} requests ({cost.puts} writes, {cost.lists} "
        f"listings), {size_to_text(cost.bytes_out)} up, {size_to_text(cost.bytes_in)} down: {money}"
    )
    if not sys.stdin.isatty():
        raise UsageError(f"validate: {says}; --yes agrees to it")
    click.confirm(f"{says}. Go on?", abort=True, err=True)


@contextmanager
def _progress() -> "Iterator[Watch]":
    """Provide a function that shows what is being measured, where somebody looks on."""
    if not shows_progress():
        yield lambda _subject, _number, _of: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda subject, number, of: status.update(f"{number}/{of} {subject}")

"""The report of a validation on a terminal: the tier, the reasons, what was tried, the figures."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backgate.gateway.validation.page import TIER_SAYS, WAYS
from backgate.gateway.validation.report import share

if TYPE_CHECKING:
    from backgate.gateway.validation.report import Finding, Report

PLAIN_WIDTH = 120  # characters where no terminal says how wide it is
COLOURS = {1: "green", 2: "yellow", 3: "red", None: "bold red"}


def print_report(report: "Report") -> None:
    """Print all but what only programs want."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    tier = "not usable" if report.tier is None else f"Tier {report.tier}"
    console.print(Text(f"{report.store}: {tier}", style=f"bold {COLOURS[report.tier]}"))
    console.print(Text(f"{TIER_SAYS[report.tier]}\n"))
    for one in report.reasons:
        _print_reason(console, one)
    console.print(_findings(report.findings))
    if report.pages:
        console.print(_pages(report))
    if report.throughput:
        console.print(_throughput(report))
    if report.left_behind:
        text = f"{len(report.left_behind)} objects could not be deleted; run this again"
        console.print(Text(text, style="bold red"))
    if report.snippet:
        console.print(Text("\nWhat was measured, for the configuration:\n", style="bold"))
        console.out(report.snippet, highlight=False)


def _print_reason(console: Console, finding: "Finding") -> None:
    said = f": {finding.detail}" if finding.detail else ""
    console.print(_tier(finding), Text(f"{finding.subject}: {finding.outcome}{said}"))
    if finding.remedy:
        console.print(Text(f"  Backgate: {finding.remedy}", style="dim"))


def _tier(finding: "Finding") -> Text:
    return Text("×" if finding.tier is None else str(finding.tier), style=COLOURS[finding.tier])


def _findings(findings: Sequence["Finding"]) -> Table:
    table = Table("tier", "what", "how", "details", title="Tried", title_justify="left")
    for one in findings:
        table.add_row(_tier(one), Text(one.subject), Text(one.outcome), Text(one.detail))
    return table


def _pages(report: "Report") -> Table:
    table = Table("listing", title="Pages of a listing", title_justify="left")
    for head in ("asked for", "in a page", "half", "nine of ten", "overdue", "faults"):
        table.add_column(head, justify="right")
    for one in report.pages:
        times = [f"{share(one.times, part) * 1000:.0f} ms" for part in (0.5, 0.9)]
        shown = times if one.times else ["-", "-"]
        numbers = (str(one.limit), str(one.keys), *shown, str(one.overdue), str(one.faults))
        table.add_row(WAYS[one.way], *numbers)
    return table


def _throughput(report: "Report") -> Table:
    table = Table("connections", title="Throughput", title_justify="left")
    for head in ("put MB/s", "get MB/s"):
        table.add_column(head, justify="right")
    for count in sorted({one.connections for one in report.throughput}):
        rates = {one.way: one.rate for one in report.throughput if one.connections == count}
        table.add_row(str(count), *(f"{rates[way] / 1e6:.1f}" for way in ("put", "get")))
    return table

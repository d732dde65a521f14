"""The report as one HTML page that needs nothing else: to be published, mailed, or kept."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Literal

from backgate.gateway.units import size_to_text
from backgate.gateway.validation.charts import Chart, Point, Series
from backgate.gateway.validation.report import Finding, PageTimes, Report, share

TIER_SAYS = {
    1: "Listings are whole and in time, and nothing is missing that backup tools rely on",
    2: "Everything works; what is weaker, Backgate makes up for",
    3: "Listings or requests fail under load; Backgate keeps tools from feeling it",
    None: "Backgate cannot use this store",
}
WAYS: dict[Literal["flat", "delimiter"], str] = {"flat": "flat", "delimiter": "by directory"}
_COLOURS = ("a", "b")


def html(report: Report) -> str:
    """Return `report` as a whole document."""
    style = files(__package__).joinpath("page.css").read_text()
    title = f"{report.store}: {_tier_text(report)}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><main>{''.join(_sections(report))}</main></body></html>\n"
    )


def _sections(report: Report) -> Iterator[str]:
    yield _head(report)
    yield _reasons(report)
    if report.pages:
        yield _section("How long a page of a listing takes", _listing(report), _pages_table(report))
    if report.throughput:
        yield _section("What many connections move", _speed(report), _speed_table(report))
    if report.latencies:
        yield _section("How long one small request takes", _latency(report), "")
    yield f"<section><h2>Everything that was tried</h2>{_findings(report.findings)}</section>"
    if report.snippet:
        yield (
            "<section><h2>The profile</h2><p>What was measured, for the configuration of Backgate:"
            f"</p><pre>{escape(report.snippet)}</pre></section>"
        )
    yield _foot(report)


def _head(report: Report) -> str:
    tier = "none" if report.tier is None else str(report.tier)
    label = "not usable" if report.tier is None else f"Tier {report.tier}"
    return (
        f'<header><p class="badge tier-{tier}">{label}</p><h1>{escape(report.store)}</h1>'
        f"<p>{escape(TIER_SAYS[report.tier])}</p><p class=quiet>"
        f"{escape(' · '.join(_facts(report)))}</p></header>"
    )


def _facts(report: Report) -> Iterator[str]:
    if report.profile:
        yield report.profile
    yield f"{report.started}, {report.seconds:.0f} s"
    yield f"{report.objects} objects"
    yield f"{sum(report.requests.values())} requests"
    yield f"Backgate {report.version}"


def _reasons(report: Report) -> str:
    if not report.reasons:
        return ""
    rows = "".join(
        f"<li>{_mark(one)}<strong>{escape(one.subject)}: {escape(one.outcome)}</strong>"
        f"{_said(one.detail)}{_remedy(one)}</li>"
        for one in report.reasons
    )
    title = "Why, and what Backgate does about it"
    return f"<section><h2>{title}</h2><ul class=reasons>{rows}</ul></section>"


def _mark(finding: Finding) -> str:
    tier = "none" if finding.tier is None else str(finding.tier)
    return f'<span class="dot tier-{tier}">{"×" if finding.tier is None else tier}</span>'


def _said(detail: str) -> str:
    return f"<p>{escape(detail)}</p>" if detail else ""


def _remedy(finding: Finding) -> str:
    return f"<p class=remedy>Backgate: {escape(finding.remedy)}</p>" if finding.remedy else ""


def _section(title: str, chart: Chart, table: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{chart.svg()}{table}</section>"


def _listing(report: Report) -> Chart:
    limits = sorted({one.limit for one in report.pages})
    series = [
        Series(name, colour, [_page_point(one, limits) for one in report.pages if one.way == way])
        for (way, name), colour in zip(WAYS.items(), _COLOURS, strict=True)
    ]
    is_overdue = any(one.overdue for one in report.pages)
    return Chart(
        title="Seconds for a page of a listing, by page size",
        places=[str(limit) for limit in limits],
        x_name="keys that were asked for",
        y_name="seconds, half of the pages; the line: nine of ten",
        text=_seconds,
        series=series,
        limit=report.deadline if is_overdue else None,
        limit_name=f"no answer within {report.deadline:g} s",
    )


def _page_point(one: PageTimes, limits: Sequence[int]) -> Point:
    place = limits.index(one.limit)
    if not one.times:
        return Point(place, None, note="no page came")
    half, most = share(one.times, 0.5), share(one.times, 0.9)
    late = f", {one.overdue} did not come" if one.overdue else ""
    return Point(place, half, most, f"{_seconds(half)} to {_seconds(most)}{late}")


def _pages_table(report: Report) -> str:
    rows = [
        (
            WAYS[one.way],
            str(one.limit),
            str(one.keys),
            _seconds(share(one.times, 0.5)) if one.times else "-",
            _seconds(share(one.times, 0.9)) if one.times else "-",
            str(one.overdue),
            str(one.faults),
        )
        for one in report.pages
    ]
    heads = ("listing", "asked for", "in a page", "half", "nine of ten", "overdue", "faults")
    return _figures(heads, rows)


def _speed(report: Report) -> Chart:
    counts = sorted({one.connections for one in report.throughput})
    series = [
        Series(
            name,
            colour,
            [
                Point(counts.index(one.connections), one.rate, note=_rate(one.rate))
                for one in report.throughput
                if one.way == way
            ],
        )
        for (way, name), colour in zip(
            (("put", "to the store"), ("get", "from it")), _COLOURS, strict=True
        )
    ]
    return Chart(
        title="Bytes per second, by connections",
        places=[str(count) for count in counts],
        x_name="connections",
        y_name="bytes per second",
        text=_rate,
        series=series,
    )


def _speed_table(report: Report) -> str:
    rows = [
        (one.way, str(one.connections), size_to_text(one.size), _rate(one.rate), str(one.faults))
        for one in report.throughput
    ]
    return _figures(("request", "connections", "moved", "rate", "faults"), rows)


def _latency(report: Report) -> Chart:
    points = [
        Point(
            number,
            share(one.times, 0.5) or None,
            share(one.times, 0.95),
            f"{_seconds(share(one.times, 0.5))} to {_seconds(share(one.times, 0.95))}",
        )
        for number, one in enumerate(report.latencies)
    ]
    return Chart(
        title="Seconds for one small request",
        places=[one.verb for one in report.latencies],
        x_name="request",
        y_name="seconds, half of them; the line: 19 of 20",
        text=_seconds,
        series=[Series("one after the other", "a", points)],
        is_connected=False,
    )


def _findings(findings: Iterable[Finding]) -> str:
    rows = "".join(
        f"<tr><td>{_mark(one)}</td><td>{escape(one.subject)}</td><td>{escape(one.outcome)}</td>"
        f"<td>{escape(one.detail)}</td></tr>"
        for one in findings
    )
    heads = "<tr><th>tier<th>what<th>how<th>details</tr>"
    return f"<div class=wide><table class=findings>{heads}{rows}</table></div>"


def _figures(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    table = f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"
    return f"<details><summary>The figures</summary>{table}</details>"


def _foot(report: Report) -> str:
    asked = ", ".join(f"{verb} {count}" for verb, count in report.requests.items())
    return f"<footer class=quiet>Requests: {escape(asked)}. Faults: {report.faults}.</footer>"


def _tier_text(report: Report) -> str:
    return "not usable" if report.tier is None else f"Tier {report.tier}"


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s"


def _rate(value: float) -> str:
    for unit, size in (("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} B/s"

"""The page stands alone, shows what was measured, and trusts no word of a store."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from backgate.gateway.validation.page import html
from backgate.gateway.validation.report import (
    Burst,
    Finding,
    Latency,
    PageTimes,
    Report,
    Throughput,
)

REPORT = Report(
    store="s3://backups/pre",
    profile="SeaweedFS",
    version="0.1.0",
    started="2026-11-22T17:00:00Z",
    seconds=83.2,
    objects=10_000,
    deadline=60.0,
    tier=3,
    findings=[
        Finding("ranges", "work", "", 1, ""),
        Finding("order", "other", "as in a, a/x", 2, "no order is presumed"),
        Finding("pages", "time out", "of 1000 keys", 3, "pages get smaller"),
    ],
    latencies=[Latency("put", [0.01, 0.02, 0.03]), Latency("get", [])],
    pages=[
        PageTimes("flat", 1000, [], 0, 2, 0),
        PageTimes("flat", 10, [0.01, 0.02], 10, 0, 0),
        PageTimes("delimiter", 1000, [0.5], 100, 1, 0),
    ],
    throughput=[Throughput("put", 1, 2, 0, 8_000_000, 2.0), Throughput("get", 1, 2, 0, 0, 0.0)],
    burst=Burst(100, 1.0, 3, 5.0, "503", 5.1),
    requests={"put": 11_000, "page": 80},
    faults=3,
    snippet='[provider.x]\ntitle = "x"\n',
    left_behind=[],
)
VOID = {"meta", "circle", "line", "path", "polyline"}


class Elements(HTMLParser):
    """All elements, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "th"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag != "th":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_tier_the_reasons_and_the_figures() -> None:
    page = Elements(html(REPORT))

    assert page.open == []
    for words in ("Tier 3", "pages: time out", "of 1000 keys", "pages get smaller", "4 MB/s"):
        assert words in page.text
    assert [tag for tag, _ in page.seen].count("svg") == 3
    assert page.text.index("pages: time out") < page.text.index("order: other")
    assert "ranges" not in page.text[: page.text.index("Everything that was tried")]
    assert "no answer within 60 s" in page.text


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = html(REPORT)

    assert not re.search(r"<script|<link|<img|<iframe|url\(|@import|https?://", text)
    assert not [name for _, attrs in Elements(text).seen for name in attrs if name in _FETCHING]


_FETCHING = {"src", "href", "data", "action", "onload", "onclick"}


def test_words_of_a_store_are_text() -> None:
    hostile = "<script>alert(1)</script>\"'&"
    finding = Finding("order", "other", hostile, 2, "")

    page = Elements(html(replace(REPORT, store=hostile, findings=[finding], snippet=hostile)))

    assert page.open == []
    assert "script" not in {tag for tag, _ in page.seen}
    assert page.text.count(hostile) == 5  # title, heading, reason, table, profile


@pytest.mark.parametrize("tier", [1, 2, 3, None])
def test_every_tier_has_a_page(tier: int | None) -> None:
    page = Elements(html(replace(REPORT, tier=tier)))  # type: ignore[arg-type]

    assert ("not usable" if tier is None else f"Tier {tier}") in page.text


def test_a_report_without_figures_is_a_page_too() -> None:
    bare = replace(REPORT, latencies=[], pages=[], throughput=[], burst=None, findings=[])

    assert "svg" not in {tag for tag, _ in Elements(html(bare)).seen}


def test_values_lie_within_the_chart() -> None:
    for tag, attrs in Elements(html(REPORT)).seen:
        if tag == "circle":
            assert 0 <= float(attrs["cx"] or -1) <= 640
            assert 0 <= float(attrs["cy"] or -1) <= 280


def test_json_says_what_was_worked_out() -> None:
    told = REPORT.to_json()

    assert told["throughput"][0]["bytes_per_second"] == 4_000_000
    assert told["burst"]["requests_per_second"] == 97
    assert [one["subject"] for one in told["reasons"]] == ["pages", "order"]

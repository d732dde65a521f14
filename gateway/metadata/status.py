"""What `backgate cache status` tells."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from backgate.gateway.metadata import coverage, progress, spans
from backgate.gateway.metadata.freshness import Freshness


@dataclass(frozen=True, slots=True)
class MetadataStatus:
    """The state of the metadata cache."""

    objects: int  # that the index knows
    bytes: int  # that they have together
    is_complete: bool  # every object is known
    coverage: float | None  # share of the store that the latest pass has told; None: nobody knows
    age: float | None  # seconds since the oldest part was confirmed; None: not complete
    is_crawling: bool  # in this process
    pages: int  # listed since the index was made
    timeouts: int  # pages that the store did not give
    page_size: int  # keys that the next page is asked for
    lists_in_order: bool  # the store was never seen to list out of order
    index_size: int  # bytes on disk
    last_error: str | None  # of a listing that failed, until one succeeds


@dataclass(frozen=True, slots=True)
class Activity:
    """What only this process knows."""

    is_crawling: bool
    page_size: int  # keys
    last_error: str | None


def status(
    db: sqlite3.Connection, path: Path, freshness: Freshness, activity: Activity
) -> MetadataStatus:
    """Return the state of the index at `path`."""
    now = progress.progress(db)
    confirmed_ns = coverage.span_confirmed(db, spans.FIRST, spans.END)
    share: float | None = None
    if confirmed_ns is not None:
        share = min(now.crawl_objects / max(now.objects, 1), 1.0) if now.is_due else 1.0
    return MetadataStatus(
        objects=now.objects,
        bytes=now.bytes,
        is_complete=confirmed_ns is not None,
        coverage=share,
        age=None if confirmed_ns is None else max(0.0, freshness.age(confirmed_ns)),
        is_crawling=activity.is_crawling,
        pages=now.pages,
        timeouts=now.timeouts,
        page_size=activity.page_size,
        lists_in_order=bool(now.is_ordered),
        index_size=sum(_size(path, suffix) for suffix in ("", "-wal")),
        last_error=activity.last_error,
    )


def _size(path: Path, suffix: str) -> int:
    try:
        return os.stat(f"{path}{suffix}").st_size
    except FileNotFoundError:
        return 0

"""What `backgate cache status` tells."""

from dataclasses import dataclass

from backgate.gateway.metadata import coverage, progress, spans
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.freshness import Freshness

PRICED = 1000  # requests that a price is for


@dataclass(frozen=True, slots=True)
class MetadataStatus:
    """The state of the metadata cache."""

    objects: int  # that the index knows
    bytes: int  # that they have together
    is_complete: bool  # every object is known
    coverage: float | None  # share of the store that the latest pass has told; None: nobody knows
    age: float | None  # seconds since the oldest part was confirmed; None: not complete
    is_crawling: bool  # in this process
    is_due: bool  # a pass over everything is under way, or waited for
    pages: int  # listed since the index was made
    timeouts: int  # pages that the store did not give
    requests: int  # listings asked for, with those for single names
    cost: float | None  # US dollars for these; None: the profile knows no price
    page_size: int  # keys that the next page is asked for
    lists_in_order: bool  # the store was never seen to list out of order
    audited: int  # objects that were compared with the store
    drifted: int  # of them, those that were not as the index had them
    index_size: int | None  # bytes on disk; None: it is in a database
    index_trouble: str | None  # what is wrong with the disk under the index
    last_error: str | None  # of a listing that failed, until one succeeds
    last_error_age: float | None  # seconds since then


@dataclass(frozen=True, slots=True)
class Activity:
    """What only this process knows."""

    is_crawling: bool
    page_size: int  # keys
    price: float | None  # US dollars for 1000 listings
    index_trouble: str | None
    bucket_trouble: str | None


def status(
    db: Database, size: int | None, freshness: Freshness, activity: Activity
) -> MetadataStatus:
    """Return the state of the index, which takes `size` bytes."""
    now = progress.progress(db)
    confirmed_ns = coverage.span_confirmed(db, spans.FIRST, spans.END)
    share: float | None = None
    if confirmed_ns is not None:
        share = min(now.crawl_objects / max(now.objects, 1), 1.0) if now.is_due else 1.0
    price = activity.price
    failed_ns = now.last_error_ns
    return MetadataStatus(
        objects=now.objects,
        bytes=now.bytes,
        is_complete=confirmed_ns is not None,
        coverage=share,
        age=None if confirmed_ns is None else max(0.0, freshness.age(confirmed_ns)),
        is_crawling=activity.is_crawling,
        is_due=bool(now.is_due),
        pages=now.pages,
        timeouts=now.timeouts,
        requests=now.requests,
        cost=None if price is None else price * now.requests / PRICED,
        page_size=activity.page_size,
        lists_in_order=now.ordering != coverage.REFUTED,
        audited=now.audited,
        drifted=now.drifted,
        index_size=size,
        index_trouble=activity.index_trouble,
        last_error=activity.bucket_trouble or now.last_error,
        last_error_age=None if failed_ns is None else max(0.0, freshness.age(failed_ns)),
    )

"""Run every measure in a prefix of its own, grade what was seen, and leave nothing behind."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import trio

from backgate import __version__
from backgate.gateway.errors import StoreError
from backgate.gateway.profiles import Profile
from backgate.gateway.provider import Provider
from backgate.gateway.validation import (
    conditions,
    consistency,
    deeds,
    filling,
    listing,
    load,
    names,
    uploads,
)
from backgate.gateway.validation.area import ROOT, Area, remove_leftovers
from backgate.gateway.validation.asking import Asker
from backgate.gateway.validation.bench import Bench
from backgate.gateway.validation.grading import FAILED, graded, tier_of
from backgate.gateway.validation.plan import Plan
from backgate.gateway.validation.report import Report, Seen
from backgate.gateway.validation.snippet import snippet

Measure = Callable[[Bench], Awaitable[Seen | Sequence[Seen]]]
Watch = Callable[[str, int, int], None]  # the subject that begins, its number, and of how many

STEPS: tuple[tuple[str, Measure], ...] = (
    ("put and get", deeds.put_and_get),
    ("checksums", deeds.checksums),
    ("latency", deeds.latencies),
    ("ranges", deeds.ranges),
    ("versions", deeds.versions),
    ("metadata", deeds.metadata),
    ("copies", deeds.copies),
    ("batch delete", deeds.batch_delete),
    ("multipart", uploads.multipart),
    ("copied parts", uploads.copied_parts),
    ("pending uploads", uploads.given_up),
    ("conditional put", conditions.conditional_put),
    ("conditional commit", uploads.conditional_commit),
    ("conditional delete", conditions.conditional_delete),
    ("special keys", names.special_keys),
    ("markers", names.markers),
    ("file beside directory", names.file_beside_directory),
    ("empty prefixes", names.forgotten_prefixes),
    ("read after write", consistency.read_after_write),
    ("list after write", consistency.list_after_write),
    ("small objects", filling.fill),
    ("pages", listing.pages),
    ("completeness", listing.whole),
    ("order", listing.order),
    ("start after", listing.start_after),
    ("throughput", load.throughput),
    ("request rate", load.limits),
)

log = logging.getLogger(__name__)


async def validate(
    provider: Provider,
    prefix: str,
    profile: Profile | None,
    plan: Plan,
    *,
    name: str = "measured",
    watch: Watch = lambda _subject, _number, _of: None,
) -> Report:
    """Measure the store below `prefix`, and return what was seen and what it means.

    `name` is what the profile in the report is called; without a `profile` to begin with there is
    none. Raises `StoreError` when the store cannot
    be reached at all, or nothing can be written. Everything that was written is deleted, also
    after cancellation.
    """
    asker = Asker(provider, plan.deadline)
    area = Area(asker, prefix + ROOT)
    bench = Bench(plan, asker, area)
    await asker.surely("check", provider.check)
    await _tidy_up_after_others(asker, area.root)
    started, began = time.gmtime(), time.monotonic()
    left: list[str] = []
    try:
        await area.open()
        seen = await _measured(bench, watch)
    finally:
        watch("cleaning up", len(STEPS), len(STEPS))
        with trio.CancelScope(shield=True):
            left = await area.clean()
        if left:
            log.error("%s: %d objects are left below %r", provider.name, len(left), area.prefix)
    findings = [graded(one) for one in seen]
    tier = tier_of(findings)
    day = time.strftime("%Y-%m-%d", started)
    return Report(
        store=f"{provider.name}/{prefix}".rstrip("/"),
        profile="" if profile is None else profile.title,
        version=__version__,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
        seconds=time.monotonic() - began,
        objects=plan.objects,
        deadline=plan.deadline,
        tier=tier,
        findings=findings,
        latencies=bench.latencies,
        pages=bench.pages,
        throughput=bench.throughput,
        burst=bench.burst,
        requests=dict(sorted(asker.requests.items())),
        faults=asker.counters.errors,
        snippet="" if profile is None else snippet(name, profile, tier, seen, findings, day),
        left_behind=left,
    )


async def _measured(bench: Bench, watch: Watch) -> list[Seen]:
    seen: list[Seen] = []
    for number, (subject, measure) in enumerate(STEPS):
        watch(subject, number, len(STEPS))
        try:
            found = await measure(bench)
        except StoreError as error:
            found = Seen(subject, FAILED, str(error))
        seen += [found] if isinstance(found, Seen) else found
    seen.append(load.faults(bench))
    # A key's place here is of no interest, and differs from run to run.
    return [replace(one, detail=one.detail.replace(bench.area.prefix, "")) for one in seen]


async def _tidy_up_after_others(asker: Asker, root: str) -> None:
    """Delete what runs have left that were killed; a store that cannot list keeps it."""
    try:
        dead, alive = await remove_leftovers(asker, root)
    except StoreError as error:
        log.warning("%s: cannot look for what earlier runs left: %s", asker.provider.name, error)
        return
    if dead:
        log.info("%s: %d earlier runs had not cleaned up: done now", asker.provider.name, dead)
    if alive:
        log.warning("%s: another validation is under way", asker.provider.name)

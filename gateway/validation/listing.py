"""Listings of many objects: are they whole, in order, and in time, whatever the page size?"""

from functools import partial
from typing import Literal

from backgate.gateway.provider import Page
from backgate.gateway.validation.bench import NO_PAGE, Bench
from backgate.gateway.validation.grading import FAILED
from backgate.gateway.validation.report import PageTimes, Seen, share

ENOUGH_OVERDUE = 2  # pages of one size that do not come; more tell nothing new
IN_TIME = 2.0  # seconds for nine of ten pages; who waits for `ls` does not notice more
SLOW = 10.0  # seconds; clients that give up on a listing do so a little later
# Directories that sort as their name does; capitals; characters that UTF-16 sorts otherwise.
# No "a" beside "a/x": SeaweedFS now and then loses one of the two when both are put at once.
TELLING = ("a-", "a.b", "a/x", "a0", "B", "b", "\uff5e", "😀")

_WAYS: dict[Literal["flat", "delimiter"], str] = {"flat": "", "delimiter": "/"}
_SUBJECTS = {"flat": "pages", "delimiter": "pages by delimiter"}
_SETTINGS = {"flat": {"list_slow": True}, "delimiter": {"list_delimiter_scans": True}}


async def pages(bench: Bench) -> list[Seen]:
    """How long do pages take, flat and by delimiter, and how many never come?"""
    found = []
    for way in _WAYS:
        timed = [await _timed(bench, way, limit) for limit in bench.plan.page_sizes]
        bench.pages += timed
        found.append(_verdict(bench, way, timed))
    return found


async def whole(bench: Bench) -> list[Seen]:
    """Does a listing, page by page, give every object once, and in order?"""
    limit = _working_size(bench)
    if limit is None:
        return [Seen("completeness", "unknown", NO_PAGE)]
    keys: list[str] = []
    sizes: list[int] = []
    token: str | None = None
    while True:
        ask = partial(bench.provider.page, bench.area.listed, token=token, limit=limit)
        page = await bench.asker.surely("page", ask)
        keys += [info.key for info in page.objects]
        sizes.append(len(page.objects))
        if page.token is None:
            break
        if page.token == token or len(sizes) > 10 * bench.plan.objects:
            return [Seen("completeness", "incomplete", "the listing does not come to an end")]
        token = page.token
    return [_completeness(bench, keys), _sizes(sizes, limit)]


async def order(bench: Bench) -> Seen:
    """Do keys come in the order of their bytes, whatever is in them?"""
    prefix = f"{bench.area.prefix}order/"
    puts = [partial(bench.provider.put, bench.area.key(f"order/{name}"), b"") for name in TELLING]
    await bench.asker.all_of("put", puts, len(puts))
    told = [key.removeprefix(prefix) for key in await bench.names(prefix)]
    if missing := set(TELLING).difference(told):
        says = f"not listed: {', '.join(sorted(missing))}"
        return Seen("order", FAILED, says, {"lists_in_order": False})
    if told != sorted(told, key=str.encode):
        says = ", ".join(told)
        return Seen("order", "other", f"as in {says}", {"lists_in_order": False})
    return Seen("order", "by key", "", {"lists_in_order": True})


async def start_after(bench: Bench) -> Seen:
    """Does a listing begin behind a key that it is given?"""
    subject = "start after"
    if _working_size(bench) is None:
        return Seen(subject, FAILED, NO_PAGE)
    expected = list(bench.area.filled)
    middle = expected[len(expected) // 2]
    ask = partial(bench.provider.page, bench.area.listed, after=middle, limit=10)
    page = await bench.asker.surely("page", ask)
    if any(info.key <= middle for info in page.objects):
        return Seen(subject, "ignored", "", {"list_start_after": False})
    if not page.objects and page.token is None:
        return Seen(subject, "ignored", "nothing was listed", {"list_start_after": False})
    return Seen(subject, "honoured", "", {"list_start_after": True})


async def _timed(bench: Bench, way: Literal["flat", "delimiter"], limit: int) -> PageTimes:
    """Ask for some pages of one size, one after the other, each behind the one before."""
    times: list[float] = []
    keys = overdue = faults = 0
    token: str | None = None
    for _ in range(bench.plan.pages):
        delimiter = _WAYS[way]
        ask = partial(bench.provider.page, bench.area.listed, delimiter, token=token, limit=limit)
        answer = await bench.asker.once("page", ask)
        if answer.value is None:
            overdue += answer.is_overdue
            faults += not answer.is_overdue
            if overdue >= ENOUGH_OVERDUE:
                break
            continue
        times.append(answer.seconds)
        keys = max(keys, _length(answer.value))
        token = answer.value.token  # from the start again behind the end
    return PageTimes(way, limit, sorted(times), keys, overdue, faults)


def _length(page: Page) -> int:
    return len(page.objects) + len(page.prefixes)


def _verdict(bench: Bench, way: Literal["flat", "delimiter"], timed: list[PageTimes]) -> Seen:
    subject, settings = _SUBJECTS[way], _SETTINGS[way]
    overdue = [one for one in timed if one.overdue]
    slowest = max(timed, key=lambda one: share(one.times, 0.9))
    longest = share(slowest.times, 0.9)
    if not any(one.times for one in timed):
        says = f"none came within {bench.plan.deadline:g} s, of {_sizes_text(timed)} keys"
        return Seen(subject, "time out", says, settings)
    if overdue:
        works = max((one.limit for one in timed if one.times and not one.overdue), default=None)
        end = "" if works is None else f"; of {works} they came"
        says = f"of {_sizes_text(overdue)} keys they did not come within {bench.plan.deadline:g} s"
        return Seen(subject, "time out", says + end, settings)
    says = f"nine of ten within {longest:.2f} s, of {slowest.limit} keys"
    if longest > SLOW:
        return Seen(subject, "time out", f"{says}: longer than many clients wait", settings)
    return Seen(subject, "in time" if longest <= IN_TIME else "slow", says)


def _sizes_text(timed: list[PageTimes]) -> str:
    return ", ".join(str(one.limit) for one in timed)


def _working_size(bench: Bench) -> int | None:
    """The largest page size of which all pages came."""
    flat = [one for one in bench.pages if one.way == "flat"]
    return next((one.limit for one in flat if one.times and not one.overdue), None)


def _completeness(bench: Bench, keys: list[str]) -> Seen:
    expected = set(bench.area.filled)
    missing = len(expected.difference(keys))
    if missing:
        return Seen("completeness", "incomplete", f"{missing} of {len(expected)} are not listed")
    if len(keys) > len(expected):
        return Seen("completeness", "repeated", f"{len(keys) - len(expected)} more than once")
    return Seen("completeness", "whole", f"{len(keys)} objects")


def _sizes(sizes: list[int], limit: int) -> Seen:
    subject, full = "page size", sizes[:-1]
    if any(size > limit for size in sizes):
        return Seen(subject, "larger", f"up to {max(sizes)} keys where {limit} were asked for")
    if 0 in full:
        return Seen(subject, "empty pages", "an empty page was not the last")
    if any(size < limit for size in full):
        settings = {"limits.page_max": max(full)}
        return Seen(subject, "smaller", f"{max(full)} keys where {limit} were asked for", settings)
    return Seen(subject, "as asked for", f"{limit} keys")

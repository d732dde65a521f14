"""What each misbehaviour of a store comes to, and that nothing of a validation is left."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest
import trio
from msgspec import structs

from backgate.gateway.errors import NotAsSent, NotFound, StoreError, Unreachable, Unsupported
from backgate.gateway.profiles import Profile, profile
from backgate.gateway.provider import NO_METADATA, Abilities, Body, Limits, ObjectInfo, Page
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.units import KIB
from backgate.gateway.validation.area import ROOT
from backgate.gateway.validation.plan import Plan, estimate
from backgate.gateway.validation.programme import validate
from backgate.gateway.validation.report import Finding, Report

SMALL = Abilities(limits=Limits(part_min=KIB, page_max=50, delete_max=20))
PLAN = Plan(
    objects=200,
    fan_out=20,
    page_sizes=(50, 10),
    pages=2,
    connections=(1, 4),
    transfer=KIB,
    burst=0.05,
    burst_max=50,
    rounds=2,
    settling=0.0,
    deadline=5.0,
)


class Careless(Memory):
    """Takes no notice of conditions."""

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        return super().put(key, body, metadata)

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        return super().commit_upload(key, upload, parts)

    def delete_version(self, key: str, etag: str) -> None:
        self.delete([key])


class Refusing(Memory):
    """Answers conditions with 501, and copies nothing."""

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        if if_absent:
            raise Unsupported("501")
        return super().put(key, body, metadata)

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        if if_absent:
            raise Unsupported("501")
        return super().commit_upload(key, upload, parts)

    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        raise Unsupported("501")

    def copy_part(
        self,
        key: str,
        upload: str,
        number: int,
        source: str,
        start: int,
        stop: int,
        etag: str | None = None,
    ) -> str:
        raise Unsupported("501")


class Checking(Memory):
    """Is sent CRC-32Cs, and refuses bodies that are not what those of `checked` say."""

    checksums = ("crc32c", "sha256", "md5")

    def __init__(self, *checked: str) -> None:
        super().__init__(abilities=SMALL)
        self._checked = checked

    def put_damaged(self, key: str, checksum: str) -> None:
        if checksum in self._checked:
            raise NotAsSent("BadDigest")
        self.put(key, b"damaged")


class OneVersion(Memory):
    """Reads whatever version there is."""

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        return super().get(key, start, stop)


class WholeOnly(Memory):
    """Takes no notice of ranges."""

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        return super().get(key, 0, 1 << 30, etag)


class Forgetful(Memory):
    """Keeps no metadata, and knows of no pending upload."""

    def head(self, key: str) -> ObjectInfo:
        return structs.replace(super().head(key), metadata={})

    def uploads(self, prefix: str = "") -> list[object]:  # type: ignore[override]
        return []


class Odd(Memory):
    """Lists through `change`, which is given each page and how it was asked for."""

    def __init__(self, change: Callable[["Odd", Page, str, str, str | None, int], Page]) -> None:
        super().__init__(abilities=SMALL)
        self.change = change

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        page = super().page(prefix, delimiter, after=after, token=token, limit=limit)
        return self.change(self, page, prefix, after, token, limit)


def without_some(store: Odd, page: Page, *asked: object) -> Page:
    return replace(page, objects=[one for one in page.objects if not one.key.endswith("7")])


def without_one(store: Odd, page: Page, *asked: object) -> Page:
    return replace(page, objects=[one for one in page.objects if not one.key.endswith("/a0")])


def first_page_again(store: Odd, page: Page, prefix: str, after: str, *asked: object) -> Page:
    return Memory.page(store, prefix, limit=10) if after else page


def repeated(store: Odd, page: Page, prefix: str, after: str, token: str | None, n: int) -> Page:
    return replace(page, objects=[*page.objects, *page.objects[-1:]]) if token else page


def empty_first(store: Odd, page: Page, prefix: str, after: str, token: str | None, n: int) -> Page:
    is_first = token is None and not after and page.token is not None
    return Page([], [], "k") if is_first else page


def halved(store: Odd, page: Page, prefix: str, after: str, token: str | None, limit: int) -> Page:
    if limit <= 10 or len(page.objects) < limit:
        return page
    return Memory.page(store, prefix, after=after, token=token, limit=limit // 2)


def never_new(store: Odd, page: Page, *asked: object) -> Page:
    return replace(page, objects=[one for one in page.objects if "consistency" not in one.key])


async def report_on(store: Memory, plan: Plan = PLAN, base: Profile | None = None) -> Report:
    found = await validate(store, "pre/", base, plan)
    assert [key for key in store._objects if key.startswith(f"pre/{ROOT}")] == []
    assert list(Memory.uploads(store)) == []
    assert found.left_behind == []
    return found


def finding(report: Report, subject: str) -> Finding:
    return next(one for one in report.findings if one.subject == subject)


async def test_a_store_that_does_everything_is_tier_1() -> None:
    report = await report_on(Memory(abilities=SMALL))

    assert report.tier == 1
    assert report.reasons == []
    assert {one.limit for one in report.pages} == {50, 10}
    assert [(one.way, one.connections) for one in report.throughput] == [
        ("put", 1),
        ("get", 1),
        ("put", 4),
        ("get", 4),
    ]
    assert report.faults == 0


@pytest.mark.parametrize(
    ("store", "subject", "outcome", "tier"),
    [
        (Careless(), "conditional put", "ignored", 2),
        (Careless(), "conditional commit", "ignored", 2),
        (Refusing(), "conditional put", "rejected", 2),
        (Refusing(), "conditional commit", "rejected", 2),
        (Checking("sha256", "md5"), "checksums", "others checked", 2),
        (Checking(), "checksums", "ignored", 2),
        (Refusing(), "copies", "failed", 2),
        (Refusing(), "copied parts", "missing", 2),
        (OneVersion(), "versions", "not told apart", 3),
        (WholeOnly(), "ranges", "wrong", None),
        (Forgetful(), "metadata", "changed", 2),
        (Forgetful(), "markers", "lost", 2),
        (Forgetful(), "pending uploads", "not told", 2),
        (Odd(without_some), "completeness", "incomplete", None),
        (Odd(without_one), "order", "failed", 2),
        (Odd(first_page_again), "start after", "ignored", 2),
        (Odd(repeated), "completeness", "repeated", 2),
        (Odd(empty_first), "page size", "empty pages", 2),
        (Odd(halved), "page size", "smaller", 2),
        (Odd(never_new), "list after write", "never", 3),
        (Memory(abilities=replace(SMALL, lists_in_order=False)), "order", "other", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_misbehaviour_is_found_and_graded(
    store: Memory, subject: str, outcome: str, tier: int | None
) -> None:
    store.abilities = replace(SMALL, lists_in_order=store.abilities.lists_in_order)

    report = await report_on(store)

    found = finding(report, subject)
    assert (found.outcome, found.tier) == (outcome, tier)
    assert found in report.reasons
    assert report.tier is None if tier is None else (report.tier or 4) >= tier


async def test_whether_a_delete_heeds_a_condition_is_told_and_costs_no_tier() -> None:
    able = replace(SMALL, conditional_delete=True)
    stores = {
        "enforced": Memory(abilities=able),
        "ignored": Careless(abilities=able),
        "rejected": Memory(abilities=SMALL),
    }
    for outcome, store in stores.items():
        report = await report_on(store, base=profile("aws"))

        found = finding(report, "conditional delete")
        assert (found.outcome, found.tier) == (outcome, 1)
        assert f'conditional_delete = "{outcome}"' in report.snippet


async def test_a_checksum_that_is_checked_is_told_and_one_that_is_not_gives_way() -> None:
    checked = finding(await report_on(Checking("crc32c")), "checksums")
    report = await report_on(Checking("md5"), base=profile("aws"))

    assert (checked.outcome, checked.tier) == ("checked", 1)
    told = "a wrong CRC-32C: refused; a wrong SHA-256: taken; a wrong MD5: taken"
    assert checked.detail == told
    assert 'upload_checksum = "md5"' in report.snippet


@pytest.mark.slow
async def test_listings_that_do_not_come_make_tier_3(gate: threading.Event) -> None:
    store = Memory(abilities=SMALL)
    hang = Fault(verb="page", key="*/listed/", gate=gate)
    store.faults.append(hang)

    report = await report_on(store, replace(PLAN, deadline=0.1, burst=0.0))

    assert report.tier == 3
    assert finding(report, "pages").outcome == "time out"
    assert finding(report, "pages by delimiter").outcome == "time out"
    assert finding(report, "completeness").outcome == "unknown"
    assert all(one.overdue == 2 and not one.times for one in report.pages)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What nobody opens before the test has ended."""
    closed = threading.Event()
    yield closed
    closed.set()


async def test_faults_are_waited_out_counted_and_graded(autojump_clock: object) -> None:
    store = Memory(abilities=SMALL)
    busy = Fault(verb="put", times=10, error=lambda: Unreachable("503: SlowDown", retry_after=7))
    store.faults.append(busy)

    report = await report_on(store)

    assert report.faults == 10
    found = finding(report, "faults")
    assert found.outcome in ("some", "many")
    assert "SlowDown" in found.detail


async def test_a_store_that_refuses_under_load_says_when_it_is_over(
    autojump_clock: object,
) -> None:
    store = Memory(abilities=SMALL)
    limited = Fault(
        verb="head",
        key="*/load/*",
        skip=30,
        times=15,
        error=lambda: Unreachable("503: SlowDown", retry_after=3),
    )
    store.faults.append(limited)

    report = await report_on(store)

    assert report.burst is not None
    assert (report.burst.faults, report.burst.retry_after) == (15, 3)
    assert report.burst.recovery is not None
    assert finding(report, "request rate").outcome in ("limited", "few")
    assert "Retry-After 3 s" in finding(report, "request rate").detail


async def test_a_store_that_stores_nothing_is_not_graded() -> None:
    store = Memory(abilities=SMALL)
    store.faults.append(Fault(verb="put", error=lambda: StoreError("403: read only")))

    with pytest.raises(StoreError, match="read only"):
        await report_on(store)


async def test_what_was_there_is_not_touched() -> None:
    store = Memory(abilities=SMALL)
    store.put("pre/mine", b"1")
    store.put(f"{ROOT}not-below-the-prefix/x", b"2")
    upload = store.begin_upload("pre/mine")

    await validate(store, "pre/", None, PLAN)

    assert sorted(store._objects) == sorted([f"{ROOT}not-below-the-prefix/x", "pre/mine"])
    assert [one.upload for one in store.uploads()] == [upload]


async def test_a_validation_that_is_cancelled_cleans_up() -> None:
    store = Memory(abilities=SMALL)
    with trio.CancelScope() as scope:

        def watch(subject: str, number: int, of: int) -> None:
            if subject == "pages":
                assert len(store._objects) > 200
                scope.cancel()

        await validate(store, "", None, PLAN, watch=watch)

    assert scope.cancelled_caught
    assert store._objects == {}
    assert list(store.uploads()) == []


class Late(Memory):
    """Holds one request up, and tells when it has come and when it is over."""

    def __init__(self, verb: str) -> None:
        super().__init__(abilities=SMALL)
        self.come, self.gate, self.over = threading.Event(), threading.Event(), threading.Event()
        held = getattr(self, verb)

        def hold(*arguments: object, **named: object) -> object:
            setattr(self, verb, held)
            self.come.set()
            self.gate.wait()
            try:
                return held(*arguments, **named)
            finally:
                self.over.set()

        setattr(self, verb, hold)

    @property
    def is_instant(self) -> bool:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["put", "begin_upload"])
async def test_what_lands_after_the_cancellation_is_deleted_too(verb: str) -> None:
    store = Late(verb)

    def watch(subject: str, number: int, of: int) -> None:
        if subject == "cleaning up":
            threading.Timer(0.3, store.gate.set).start()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(validate, store, "", None, PLAN, watch=watch))
        await trio.to_thread.run_sync(store.come.wait)
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(store.over.wait)

    assert store._objects == {}
    assert list(store.uploads()) == []


async def test_objects_that_cannot_be_deleted_are_told(caplog: pytest.LogCaptureFixture) -> None:
    store = Memory(abilities=SMALL)
    stubborn = Fault(verb="delete", key="*/listed/*7", error=lambda: StoreError("403: locked"))
    store.faults.append(stubborn)

    report = await validate(store, "", None, PLAN)

    assert len(report.left_behind) == 20
    assert all(key in store._objects for key in report.left_behind)
    assert "20 objects are left below" in caplog.text


async def test_an_absent_bucket_is_said_before_anything_is_measured() -> None:
    store = Memory()
    store.faults.append(Fault(verb="check", error=lambda: NotFound("no such bucket")))

    with pytest.raises(NotFound):
        await validate(store, "", None, PLAN)
    assert [verb for verb, _ in store.requests] == ["check"]


async def test_the_estimate_is_not_exceeded() -> None:
    store = Memory(abilities=SMALL)
    told = estimate(PLAN, SMALL.limits, None)

    report = await report_on(store)

    assert sum(report.requests.values()) <= told.requests
    puts = ("put", "put_part", "copy", "copy_part", "begin_upload", "commit_upload")
    assert sum(report.requests.get(verb, 0) for verb in puts) <= told.puts
    assert report.requests["page"] + report.requests["uploads"] <= told.lists

"""Writes that must not replace anything: what locks between backup tools rely on."""

from functools import partial

import trio

from backgate.gateway.errors import AlreadyThere, NotFound, Replaced, StoreError, Unsupported
from backgate.gateway.validation.bench import Bench
from backgate.gateway.validation.report import Seen

RACERS = 16
SUBJECT = "conditional put"


async def conditional_put(bench: Bench) -> Seen:
    """Is a put refused where an object is, also when many put at once?"""
    key = bench.area.key("conditions/there")
    await bench.put(key, b"first")
    put = partial(bench.provider.put, key, b"second", if_absent=True)
    try:
        await bench.asker.surely("put", put)
    except AlreadyThere:
        return await _race(bench)
    except Unsupported as error:
        return Seen(SUBJECT, "rejected", str(error), {"conditional_put": "rejected"})
    says = "the store answered yes and replaced the object"
    return Seen(SUBJECT, "ignored", says, {"conditional_put": "ignored"})


async def conditional_delete(bench: Bench) -> Seen:
    """Is only that version of an object deleted which is named?"""
    key = bench.area.key("conditions/version")
    old, new = await bench.put(key, b"first"), await bench.put(key, b"second")
    try:
        await _delete(bench, key, old.etag)
    except Replaced:
        return await _right_version(bench, key, new.etag)
    except Unsupported as error:
        return _of_delete("rejected", str(error))
    return _of_delete("ignored", "the store answered yes and deleted another version")


async def _right_version(bench: Bench, key: str, etag: str) -> Seen:
    try:
        await _delete(bench, key, etag)
        await bench.head(key)
    except NotFound:
        return _of_delete("enforced", "")
    except Replaced:
        return _of_delete("rejected", "the very version that was named was taken for another")
    return _of_delete("ignored", "the store answered yes and deleted nothing")


async def _delete(bench: Bench, key: str, etag: str) -> None:
    await bench.asker.surely("delete", partial(bench.provider.delete_version, key, etag))


def _of_delete(outcome: str, detail: str) -> Seen:
    return Seen("conditional delete", outcome, detail, {"conditional_delete": outcome})


async def _race(bench: Bench) -> Seen:
    key = bench.area.key("conditions/lock")
    errors: list[StoreError | None] = []

    async def run(number: int) -> None:
        put = partial(bench.provider.put, key, b"%d" % number, if_absent=True)
        errors.append((await bench.asker.once("put", put)).error)

    async with trio.open_nursery() as nursery:
        for number in range(RACERS):
            nursery.start_soon(run, number)
    winners = errors.count(None)
    says = f"of {RACERS} at once {winners} won"
    if winners <= 1:  # none: its answer was a fault
        return Seen(SUBJECT, "enforced", says, {"conditional_put": "enforced"})
    return Seen(SUBJECT, "ignored", says, {"conditional_put": "ignored"})

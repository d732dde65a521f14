"""Is what was just written there when it is looked for: by name, and in a listing?"""

import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from backgate.gateway.errors import NotFound
from backgate.gateway.validation.bench import Bench
from backgate.gateway.validation.report import Seen

LOOK_AGAIN = 0.2  # seconds


async def read_after_write(bench: Bench) -> Seen:
    """Does a read see the last write at once: a new object, a new version, a deletion?"""
    late = 0
    for number in range(bench.plan.rounds):
        key = bench.area.key(f"consistency/read/{number}")
        for body in (b"first", b"second"):
            await bench.put(key, body)
            late += not await _reads(bench, key, body)
        await bench.asker.delete([key])
        late += not await _is_gone(bench, key)
    if late:
        return Seen("read after write", "late", f"{late} of {3 * bench.plan.rounds} reads were old")
    return Seen("read after write", "at once", f"{3 * bench.plan.rounds} of as many")


async def list_after_write(bench: Bench) -> Seen:
    """How soon does a listing show that an object came, and that it went?"""
    prefix = f"{bench.area.prefix}consistency/list/"
    longest = 0.0
    for number in range(bench.plan.rounds):
        key = bench.area.key(f"consistency/list/{number}")
        await bench.put(key)
        came = await _until(bench, partial(_is_listed, bench, prefix, key, is_there=True))
        await bench.asker.delete([key])
        went = await _until(bench, partial(_is_listed, bench, prefix, key, is_there=False))
        if came is None or went is None:
            what = "did not appear" if came is None else "did not vanish"
            says = f"an object {what} within {bench.plan.settling:.0f} s"
            return Seen("list after write", "never", says, {"list_consistency": "eventual"})
        longest = max(longest, came, went)
    if longest > 0:
        settings = {"list_consistency": "eventual", "list_grace": float(round(2 * longest) + 1)}
        return Seen("list after write", "late", f"up to {longest:.1f} s later", settings)
    return Seen("list after write", "at once", "", {"list_consistency": "strong"})


async def _reads(bench: Bench, key: str, body: bytes) -> bool:
    try:
        return await bench.get(key, 0, len(body) + 1) == body
    except NotFound:
        return False


async def _is_gone(bench: Bench, key: str) -> bool:
    try:
        await bench.head(key)
    except NotFound:
        return True
    return False


async def _is_listed(bench: Bench, prefix: str, key: str, *, is_there: bool) -> bool:
    return (key in await bench.names(prefix)) == is_there


async def _until(bench: Bench, look: Callable[[], Awaitable[bool]]) -> float | None:
    """Return after how many seconds `look` was true, 0 when at once; None when it never was."""
    began = time.monotonic()
    if await look():
        return 0.0
    while time.monotonic() - began < bench.plan.settling:
        await trio.sleep(LOOK_AGAIN)
        if await look():
            return time.monotonic() - began
    return None

"""Many connections at once: what they move, and what the store says when it is too much."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import trio

from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.provider import ObjectInfo, Provider
from backgate.gateway.validation.asking import CONNECTIONS, Answer
from backgate.gateway.validation.bench import Bench
from backgate.gateway.validation.report import Burst, Seen, Throughput

RECOVERS_WITHIN = 60.0  # seconds; longer than any Retry-After that was met
LOOK_AGAIN = 0.5  # seconds
FEW = 100.0  # requests per second; one `find` of a person makes more
MORE_THAN_USUAL = 3.0  # times as many faults; fewer have another cause than the load
RARE = 0.001  # of all requests; what is below does not show
OFTEN = 0.05  # of all requests; what is above is felt in spite of retries


async def throughput(bench: Bench) -> Seen:
    """How many bytes a second go up and down, over 1 to 32 connections?"""
    body = bytes(range(256)) * max(1, bench.plan.transfer // 256)
    size = len(body)
    for connections in bench.plan.connections:
        count = bench.plan.transfers(connections)
        keys = [bench.area.key(f"load/{number}") for number in range(count)]
        puts = [partial(_sent, bench.provider, key, body) for key in keys]
        gets = [partial(_fetched, bench.provider, key, size) for key in keys]
        bench.throughput.append(await _moved(bench, "put", puts, connections, size))
        bench.throughput.append(await _moved(bench, "get", gets, connections, size))
    best = {
        way: max(one.rate for one in bench.throughput if one.way == way) for way in ("put", "get")
    }
    says = f"up {best['put'] / 1e6:.0f} MB/s, down {best['get'] / 1e6:.0f} MB/s"
    return Seen("throughput", "measured", says)


async def limits(bench: Bench) -> Seen:
    """What does the store say when requests come as fast as they can, and when is it over?"""
    key = bench.area.key("load/asked")
    await bench.put(key, b"x")
    usual = bench.asker.counters.errors / bench.asker.requests.total()
    ask = partial(bench.provider.head, key)
    answers: list[Answer[ObjectInfo]] = []
    until = time.monotonic() + bench.plan.burst

    async def work() -> None:
        while time.monotonic() < until and len(answers) < bench.plan.burst_max:
            answers.append(await bench.asker.once("head", ask))

    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(work)
    took = max(time.monotonic() - began, 1e-9)
    refused = [one.error for one in answers if one.error is not None]
    waits = [error.retry_after for error in refused if isinstance(error, Unreachable)]
    wait = max((one for one in waits if one is not None), default=None)
    recovery = await _recovery(bench, ask, wait) if refused else 0.0
    said = str(refused[0]) if refused else ""
    bench.burst = Burst(len(answers), took, len(refused), wait, said, recovery)
    return _verdict(bench.burst, usual)


def faults(bench: Bench) -> Seen:
    """How many of all requests had to be made again?"""
    asked = bench.asker.requests.total()
    part = bench.asker.counters.errors / max(1, asked)
    says = f"{bench.asker.counters.errors} of {asked} requests"
    if bench.asker.counters.last_error:
        says += f"; the last: {bench.asker.counters.last_error}"
    return Seen("faults", "rare" if part <= RARE else "some" if part <= OFTEN else "many", says)


def _sent(provider: Provider, key: str, body: bytes) -> None:
    provider.put(key, body)


def _fetched(provider: Provider, key: str, size: int) -> None:
    """Read an object and keep nothing of it: 32 of them are much memory."""
    if len(provider.get(key, 0, size)) != size:
        raise StoreError(f"{provider.name}: get {key!r}: fewer than {size} bytes", key=key)


async def _moved(
    bench: Bench,
    way: Literal["put", "get"],
    calls: Sequence[Callable[[], None]],
    connections: int,
    size: int,
) -> Throughput:
    before, began = bench.asker.counters.errors, time.monotonic()
    await bench.asker.all_of(way, calls, connections)
    took = max(time.monotonic() - began, 1e-9)
    failed = bench.asker.counters.errors - before
    return Throughput(way, connections, len(calls), failed, len(calls) * size, took)


async def _recovery(bench: Bench, ask: Callable[[], object], wait: float | None) -> float | None:
    """Wait as long as we were asked to, and return when a request succeeded."""
    began = time.monotonic()
    await trio.sleep(min(wait or LOOK_AGAIN, RECOVERS_WITHIN))
    while (await bench.asker.once("head", ask)).error is not None:
        if time.monotonic() - began > RECOVERS_WITHIN:
            return None
        await trio.sleep(LOOK_AGAIN)
    return time.monotonic() - began


def _verdict(burst: Burst, usual: float) -> Seen:
    """What a burst tells, where a `usual` part of requests fails without one."""
    subject, says = "request rate", f"{burst.rate:.0f} requests/s"
    if burst.faults <= MORE_THAN_USUAL * usual * burst.requests:
        return Seen(subject, "no limit met", says)
    asked = "" if burst.retry_after is None else f", Retry-After {burst.retry_after:g} s"
    says += f", then {burst.faults} of {burst.requests} were refused{asked}: {burst.said}"
    settings = {"rate.get": float(max(1, round(burst.rate)))}
    if burst.recovery is None:
        return Seen(subject, "no recovery", f"{says}; none for {RECOVERS_WITHIN:.0f} s", settings)
    return Seen(subject, "limited" if burst.rate >= FEW else "few", says, settings)
